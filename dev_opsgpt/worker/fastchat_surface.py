"""FastChat's routes of a worker: an adapter over the same engine and the same admission.

Source: fschat 0.2.36, ``base_model_worker.py`` and ``model_worker.py``. Every error is HTTP 200
with a numeric ``error_code``, as FastChat's gateway expects it.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from dev_opsgpt.protocol import fastchat
from dev_opsgpt.protocol.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    RequestTooLarge,
    Unsupported,
    fastchat_body,
)
from dev_opsgpt.protocol.fastchat import (
    ConversationReply,
    CountTokenReply,
    CountTokenRequest,
    EmbeddingsReply,
    EmbeddingsRequest,
    GenerateRequest,
    Load,
    ModelDetails,
    WorkerStatus,
)
from dev_opsgpt.protocol.openai import EmbeddingRequest
from dev_opsgpt.protocol.parse import parse
from dev_opsgpt.transport.asgi import JSON, ClientGone, read_body, send_body
from dev_opsgpt.transport.router import Routes
from dev_opsgpt.transport.server import Receive, Scope, Send
from dev_opsgpt.worker.admission import Admission
from dev_opsgpt.worker.conversation import MarkedConversation
from dev_opsgpt.worker.engine import Delta, Engine, TokenEnds
from dev_opsgpt.worker.fastchat_frames import Frame, SoFar, keep_coming
from dev_opsgpt.worker.fastchat_requests import chat_request, completion_request
from dev_opsgpt.worker.openai_surface import pack

log = logging.getLogger(__name__)

Body = TypeVar("Body")
# Seconds without a frame before the last one is sent again; FastChat's gateway waits 100.
SILENCE = 20.0


class _Asked(msgspec.Struct):
    """A body of which only the model's name counts, if it is there."""

    model: str = ""


class FastChatSurface:
    """The routes, over one engine that answers to ``names``.

    ``interval`` is FastChat's ``stream_interval``: every frame repeats the text so far, so a
    frame goes out only for every ``interval``-th step. ``silence`` is in seconds. ``load`` tells
    what the worker has to do, where ``admission`` does not see all of it.
    """

    def __init__(
        self,
        engine: Engine,
        names: list[str],
        admission: Admission,
        conversation: MarkedConversation,
        *,
        max_body: int,
        interval: int = 2,
        silence: float = SILENCE,
        load: Callable[[], Awaitable[Load]] | None = None,
    ) -> None:
        self._engine = engine
        self._names = names
        self._admission = admission
        self._conversation = conversation
        self._max_body = max_body
        self._load = load
        self._interval = max(1, interval)
        self._silence = silence

    def routes(self) -> Routes:
        """The route table."""
        return {
            "/worker_generate_stream": {"POST": self.generate_stream},
            "/worker_generate": {"POST": self._replying(self._generate)},
            "/worker_get_embeddings": {"POST": self._replying(self._embeddings)},
            "/worker_get_status": {"POST": self._replying(self._status)},
            "/count_token": {"POST": self._replying(self._count_token)},
            "/worker_get_conv_template": {"POST": self._replying(self._conv_template)},
            "/model_details": {"POST": self._replying(self._model_details)},
        }

    async def generate_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``/worker_generate_stream``: frames of cumulative text."""
        try:
            body = await read_body(scope, receive, self._max_body)
            request = decode(GenerateRequest, body)
        except ApiError as error:
            await _send(send, fastchat.frame(fastchat_body(error)), fastchat.CONTENT_TYPE, error)
            return
        so_far = SoFar(request)
        frames = self._frames(request, so_far, self._interval)
        head = [(b"content-type", fastchat.CONTENT_TYPE.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        async with aclosing(keep_coming(frames, so_far.frame(), self._silence)) as coming:
            async for one in coming:
                data = fastchat.frame(one)
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _frames(
        self, request: GenerateRequest, so_far: SoFar, interval: int | None
    ) -> AsyncGenerator[Frame, None]:
        """The frames of one answer, one for every ``interval`` steps (``None``: only the last).

        The last one carries ``finish_reason`` or an error.
        """
        try:
            async with self._admission.slot(), aclosing(self._steps(request)) as steps:
                count = 0
                finish = "stop"
                async for delta in steps:
                    so_far.add(delta)
                    finish = delta.finish_reason or finish
                    count += 1
                    if interval and count % interval == 0 and delta.finish_reason is None:
                        yield so_far.frame()
                yield so_far.frame(finish)
        except ApiError as error:
            yield fastchat_body(error)
        except Exception:
            log.exception("an answer in FastChat's form failed")
            yield fastchat_body(InternalError("The worker failed; see its log."))

    def _steps(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        model = self._model(request.model)
        if request.logprobs is not None and request.echo is not False:
            raise Unsupported("echo together with logprobs is not supported.", param="echo")
        ends = self._engine.ends_at if isinstance(self._engine, TokenEnds) else None
        messages = self._conversation.messages(request.prompt, request.images or ())
        if messages is not None:
            return self._engine.chat(chat_request(request, model, messages, ends))
        return self._engine.complete(completion_request(request, model, ends), request.prompt)

    def _model(self, name: str) -> str:
        """FastChat's workers answer to any name, so a strange one is taken for the first."""
        return name if name in self._names else self._names[0]

    async def _generate(self, body: bytes) -> Frame:
        request = decode(GenerateRequest, body)
        async with aclosing(self._frames(request, SoFar(request), None)) as frames:
            return await anext(frames)

    async def _embeddings(self, body: bytes) -> EmbeddingsReply:
        request = decode(EmbeddingsRequest, body)
        inputs = [request.input] if isinstance(request.input, str) else request.input
        fields = {"model": self._model(request.model), "input": inputs}
        asked = parse(EmbeddingRequest, msgspec.json.encode(fields))
        async with self._admission.slot():
            vectors, tokens = await self._engine.embed(inputs, asked)
        if request.encoding_format == "base64":
            return EmbeddingsReply([pack(vector) for vector in vectors], tokens)
        return EmbeddingsReply(vectors, tokens)

    async def _status(self, body: bytes) -> WorkerStatus:
        queue = self._admission.queue_length
        if self._load is not None:
            load = await self._load()
            queue = load.running + load.waiting
        return WorkerStatus(self._names, 1, queue)

    async def _count_token(self, body: bytes) -> CountTokenReply:
        request = decode(CountTokenRequest, body)
        messages = self._conversation.messages(request.prompt)
        if messages is None:
            return CountTokenReply(await self._engine.count_tokens(request.prompt))
        if not messages:
            return CountTokenReply(0)
        asked = chat_request(GenerateRequest(prompt=""), self._model(request.model), messages)
        return CountTokenReply(await self._engine.count_tokens(asked))

    async def _conv_template(self, body: bytes) -> ConversationReply:
        name = decode(_Asked, body or b"{}").model
        return ConversationReply(self._conversation.template(self._model(name)))

    async def _model_details(self, body: bytes) -> ModelDetails:
        return ModelDetails(self._engine.context_length)

    def _replying(
        self, reply: Callable[[bytes], Awaitable[Any]]
    ) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        async def handler(scope: Scope, receive: Receive, send: Send) -> None:
            failed: ApiError | None = None
            try:
                answer = await reply(await read_body(scope, receive, self._max_body))
            except ApiError as error:
                failed = error
            except ClientGone:
                raise
            except Exception:
                log.exception("%s failed", scope["path"])
                failed = InternalError("The worker failed; see its log.")
            if failed is not None:
                answer = fastchat_body(failed)
            await _send(send, msgspec.json.encode(answer), JSON, failed)

        return handler


async def _send(send: Send, body: bytes, content_type: str, error: ApiError | None) -> None:
    """Sends an answer, under status 200 whatever it is. A body that was refused unread takes its
    connection with it, for what is left of it would be taken for the next request."""
    headers = {"connection": "close"} if isinstance(error, RequestTooLarge) else None
    await send_body(send, 200, body, content_type=content_type, headers=headers)


def decode(type_: type[Body], body: bytes) -> Body:
    """A body as FastChat sends it. Raises ``InvalidRequest``."""
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not as expected: {error}") from None
