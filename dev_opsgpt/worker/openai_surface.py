"""OpenAI's routes of a worker, and rerank: validate, admit, let the engine work, answer."""

import array
import asyncio
import base64
import sys
import time
import uuid
from collections.abc import Callable

import msgspec

from dev_opsgpt.protocol.chat_answers import ChatAnswer
from dev_opsgpt.protocol.completion_answers import CompletionAnswer
from dev_opsgpt.protocol.errors import ModelNotFound, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.parse import parse
from dev_opsgpt.protocol.rerank import RerankRequest, rerank_answer
from dev_opsgpt.transport.answer import answer_with
from dev_opsgpt.transport.asgi import header, read_body, send_body, send_json
from dev_opsgpt.transport.fanout import merge
from dev_opsgpt.transport.router import Routes
from dev_opsgpt.transport.server import Receive, Scope, Send
from dev_opsgpt.worker.admission import Admission
from dev_opsgpt.worker.engine import Engine, Reranker
from dev_opsgpt.worker.relay import Relay, fields_of, model_of

CLIENT_KEY = b"x-opsgpt-client-key"
# To write down so many numbers takes some ten milliseconds, for which others would wait.
MANY_NUMBERS = 50_000


class OpenAISurface:
    """The routes, over one engine that answers to ``names``.

    ``clock`` gives Unix time in seconds; ``max_body`` bounds request bodies, in bytes.
    """

    def __init__(
        self,
        engine: Engine,
        names: list[str],
        admission: Admission,
        *,
        max_body: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._names = names
        self._admission = admission
        self._max_body = max_body
        self._clock = clock
        self._started = int(clock())

    def routes(self) -> Routes:
        """The route table."""
        return {
            "/v1/chat/completions": {"POST": self.chat},
            "/v1/completions": {"POST": self.complete},
            "/v1/embeddings": {"POST": self.embed},
            "/v1/rerank": {"POST": self.rerank},
            "/v1/models": {"GET": self.models},
        }

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /v1/models``."""
        data = [
            {"id": name, "object": "model", "created": self._started, "owned_by": "opsgpt"}
            for name in self._names
        ]
        await send_json(send, 200, {"object": "list", "data": data})

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/chat/completions``."""
        body = await read_body(scope, receive, self._max_body)
        if (relay := self._relay("/chat/completions")) is not None:
            await self._pass_on(relay, "/chat/completions", scope, body, send)
            return
        request = parse(ChatRequest, body)
        self._check(request.model)
        if request.modalities and "audio" in request.modalities:
            raise Unsupported("This model answers in text only.", param="modalities")
        answer = ChatAnswer(
            uuid.uuid4().hex,
            int(self._clock()),
            request.model,
            choices=request.choices,
            logprobs=bool(request.logprobs),
            include_usage=request.include_usage,
        )
        async with self._admission.slot():
            steps = merge(
                [self._engine.chat(request, index=i) for i in range(request.choices)],
                at_once=self._admission.share,
            )
            await answer_with(send, answer, steps, stream=bool(request.stream))

    async def complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/completions``."""
        body = await read_body(scope, receive, self._max_body)
        if (relay := self._relay("/completions")) is not None:
            await self._pass_on(relay, "/completions", scope, body, send)
            return
        request = parse(CompletionRequest, body)
        self._check(request.model)
        check_completion(request)
        prompts = request.prompts
        answer = CompletionAnswer(
            uuid.uuid4().hex,
            int(self._clock()),
            request.model,
            echoes=[str(prompt) if request.echo else "" for prompt in prompts],
            choices=request.choices,
            logprobs=request.logprobs is not None,
            include_usage=request.include_usage,
        )
        async with self._admission.slot():
            steps = merge(
                [
                    self._engine.complete(request, prompt, index=i)
                    for prompt in prompts
                    for i in range(request.choices)
                ],
                at_once=self._admission.share,
            )
            await answer_with(send, answer, steps, stream=bool(request.stream))

    async def embed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/embeddings``."""
        body = await read_body(scope, receive, self._max_body)
        if (relay := self._relay("/embeddings")) is not None:
            await self._pass_on(relay, "/embeddings", scope, body, send)
            return
        request = parse(EmbeddingRequest, body)
        self._check(request.model)
        async with self._admission.slot():
            vectors, tokens = await self._engine.embed(request.inputs, request)
        if sum(map(len, vectors)) < MANY_NUMBERS:
            answer = embedding_answer(request, vectors, tokens)
        else:
            answer = await asyncio.to_thread(embedding_answer, request, vectors, tokens)
        await send_body(send, 200, answer)

    async def rerank(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /v1/rerank``."""
        body = await read_body(scope, receive, self._max_body)
        if (relay := self._relay("/rerank")) is not None:
            await self._pass_on(relay, "/rerank", scope, body, send)
            return
        request = parse(RerankRequest, body)
        self._check(request.model)
        engine = self._engine
        if not isinstance(engine, Reranker):
            raise Unsupported("This model does not rerank.", param="model")
        check_rerank(request)
        async with self._admission.slot():
            scores, tokens = await engine.rerank(request)
        answer = rerank_answer(request, scores, tokens, identifier=uuid.uuid4().hex)
        await send_json(send, 200, answer)

    def _relay(self, path: str) -> Relay | None:
        engine = self._engine
        return engine if isinstance(engine, Relay) and engine.relays(path) else None

    async def _pass_on(
        self, relay: Relay, path: str, scope: Scope, body: bytes, send: Send
    ) -> None:
        """Has a server that speaks OpenAI's dialect answer; it validates the rest."""
        fields = fields_of(body)
        self._check(model_of(fields))
        key = header(scope, CLIENT_KEY)
        async with self._admission.slot():
            client_key = key.decode("latin-1") if key else None
            await relay.relay(path, fields, send, client_key=client_key)

    def _check(self, model: str) -> None:
        if model not in self._names:
            raise ModelNotFound(f"This worker does not serve the model '{model}'.", param="model")


def embedding_answer(request: EmbeddingRequest, vectors: list[list[float]], tokens: int) -> bytes:
    """The body that answers with these vectors. Written one by one, so that a thread which writes
    many lets the event loop run in between."""
    packed = request.encoding_format == "base64"
    data = [
        msgspec.Raw(
            msgspec.json.encode(
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": pack(vector) if packed else vector,
                }
            )
        )
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": request.model, "usage": usage}
    return msgspec.json.encode(answer)


def check_completion(request: CompletionRequest) -> None:
    """Refuses what no engine here can do. Raises ``Unsupported``."""
    if request.suffix:
        raise Unsupported("Text after the gap (suffix) is not supported.", param="suffix")
    if request.best_of is not None and request.best_of != request.choices:
        raise Unsupported("best_of is supported only where it equals n.", param="best_of")
    if request.echo and request.logprobs is not None:
        raise Unsupported("echo together with logprobs is not supported.", param="echo")
    if request.echo and not all(isinstance(prompt, str) for prompt in request.prompts):
        raise Unsupported("echo is supported for prompts given as text.", param="echo")


def check_rerank(request: RerankRequest) -> None:
    """Refuses what no engine here can do. Raises ``Unsupported``."""
    if request.rank_fields not in (None, ["text"]):
        raise Unsupported("Documents are ranked by their text only.", param="rank_fields")
    if request.max_chunks_per_doc is not None:
        raise Unsupported(
            "Documents are not cut into chunks; max_tokens_per_doc is supported.",
            param="max_chunks_per_doc",
        )


def pack(vector: list[float]) -> str:
    """A vector as base64 of little-endian 32-bit floats: OpenAI's ``encoding_format: base64``."""
    floats = array.array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()
