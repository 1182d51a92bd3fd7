"""Requests in OpenAI's dialect, answered by workers that speak FastChat's protocol.

What FastChat's gateway does in six hops is done in two when warm: the conversation template and
the context length of a worker are kept for a while, the prompt's tokens are counted, and the
answer is generated. Source: fschat 0.2.36, ``openai_api_server.py``.
"""

import asyncio
import base64
import struct
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from dev_opsgpt.gateway.fastchat_params import (
    COMPLETION_TOKENS,
    chat_params,
    check_chat,
    check_completion,
    check_embedding,
    completion_params,
    conversation,
)
from dev_opsgpt.gateway.fastchat_peer import Peer, RouteMissing
from dev_opsgpt.gateway.fastchat_prompt import render
from dev_opsgpt.gateway.fastchat_reader import FrameReader
from dev_opsgpt.protocol.chat_answers import ChatAnswer
from dev_opsgpt.protocol.completion_answers import CompletionAnswer
from dev_opsgpt.protocol.errors import (
    ContextLengthExceeded,
    NotFound,
    Unsupported,
    UpstreamFailed,
)
from dev_opsgpt.protocol.fastchat import (
    BadFrame,
    Conversation,
    ConversationReply,
    CountTokenReply,
    FrameDecoder,
    ModelDetails,
)
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.parse import parse
from dev_opsgpt.protocol.steps import Delta, Usage
from dev_opsgpt.routing.table import Worker
from dev_opsgpt.transport.answer import answer_with
from dev_opsgpt.transport.asgi import send_json
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.fanout import merge
from dev_opsgpt.transport.server import Send

# Seconds for which a worker's template is taken to be still the same.
FACTS_LIFETIME = 60.0
# A worker may hold a whole batch in memory at once, so FastChat sends no more than this.
EMBEDDING_BATCH = 4


@dataclass(frozen=True)
class _Facts:
    """What is known of a model on a worker, until ``expires``."""

    template: Conversation
    context_length: int
    expires: float


@dataclass(frozen=True)
class _Model:
    """A model on a worker, ready to be asked."""

    peer: Peer
    name: str
    facts: _Facts


class _Embeddings(msgspec.Struct):
    """The answer of ``/worker_get_embeddings`` where no format was asked for."""

    embedding: list[list[float]]
    token_num: int


class FastChatWorkers:
    """Answers requests by workers that registered the FastChat way.

    ``clock`` gives Unix time in seconds, ``now`` monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        clock: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._clock = clock
        self._now = now
        self._peers: dict[str, Peer] = {}
        self._facts: dict[tuple[str, str], _Facts] = {}

    async def answer(self, row: Worker, path: str, body: bytes, send: Send) -> None:
        """Answers one request with one worker.

        Raises ``ApiError`` while nothing has been sent; a fault after that is an error event.
        """
        if path == "/v1/chat/completions":
            await self._chat(row, parse(ChatRequest, body), send)
        elif path == "/v1/completions":
            await self._complete(row, parse(CompletionRequest, body), send)
        elif path == "/v1/embeddings":
            await self._embed(row, parse(EmbeddingRequest, body), send)
        elif path == "/v1/rerank":
            raise Unsupported("This model does not rerank.", param="model")
        else:
            raise NotFound(f"A FastChat worker cannot answer {path}.")

    async def _chat(self, row: Worker, request: ChatRequest, send: Send) -> None:
        check_chat(request)
        model = await self._model(row, request.model)
        template = model.facts.template
        filled, images = conversation(template, request.messages, multimodal=row.multimodal)
        prompt = render(filled)
        count, params = await self._fitted(
            model, chat_params(request, template, model.name, prompt, images), request.limit
        )
        answer = ChatAnswer(
            uuid.uuid4().hex,
            int(self._clock()),
            request.model,
            choices=request.choices,
            logprobs=bool(request.logprobs),
            include_usage=request.include_usage,
        )
        steps = merge(
            [_generate(model, params, count) for _ in range(request.choices)],
            at_once=_share(row),
        )
        await answer_with(send, answer, steps, stream=bool(request.stream))

    async def _complete(self, row: Worker, request: CompletionRequest, send: Send) -> None:
        check_completion(request)
        model = await self._model(row, request.model)
        template = model.facts.template
        prompts = [str(prompt) for prompt in request.prompts]
        limit = COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens
        asked = [completion_params(request, template, model.name, prompt) for prompt in prompts]
        fitted = await asyncio.gather(*(self._fitted(model, params, limit) for params in asked))
        answer = CompletionAnswer(
            uuid.uuid4().hex,
            int(self._clock()),
            request.model,
            echoes=prompts if request.echo else ["" for _ in prompts],
            choices=request.choices,
            logprobs=request.logprobs is not None,
            include_usage=request.include_usage,
        )
        steps = merge(
            [
                _generate(model, params, count)
                for count, params in fitted
                for _ in range(request.choices)
            ],
            at_once=_share(row),
        )
        await answer_with(send, answer, steps, stream=bool(request.stream))

    async def _embed(self, row: Worker, request: EmbeddingRequest, send: Send) -> None:
        check_embedding(request)
        peer, name = self._peer(row.address), row.upstream_models.get(request.model, request.model)
        vectors: list[list[float]] = []
        tokens = 0
        for start in range(0, len(request.inputs), EMBEDDING_BATCH):
            part = request.inputs[start : start + EMBEDDING_BATCH]
            found = await _embedded(peer, {"model": name, "input": part}, len(part))
            vectors += found[0]
            tokens += found[1]
        packed = request.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": _packed(v) if packed else v}
            for i, v in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = {"object": "list", "data": data, "model": request.model, "usage": usage}
        await send_json(send, 200, answer)

    async def _model(self, row: Worker, asked: str) -> _Model:
        """The model on the worker, with its template and context length."""
        name = row.upstream_models.get(asked, asked)
        peer, key, now = self._peer(row.address), (row.address, name), self._now()
        facts = self._facts.get(key)
        if facts is None or facts.expires < now:
            reply, details = await asyncio.gather(
                peer.ask("/worker_get_conv_template", {"model": name}, ConversationReply),
                peer.ask("/model_details", {"model": name}, ModelDetails),
            )
            facts = _Facts(reply.conv, details.context_length, now + FACTS_LIFETIME)
            self._facts[key] = facts
            self._forget_expired(now)
        return _Model(peer, name, facts)

    def _peer(self, address: str) -> Peer:
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = Peer(self._client, address)
        return peer

    def _forget_expired(self, now: float) -> None:
        """Workers come and go; those not asked for a while are not kept."""
        self._facts = {key: facts for key, facts in self._facts.items() if facts.expires >= now}
        used = {address for address, _ in self._facts}
        self._peers = {address: peer for address, peer in self._peers.items() if address in used}

    async def _fitted(
        self, model: _Model, params: dict[str, Any], limit: int | None
    ) -> tuple[int, dict[str, Any]]:
        """The prompt's tokens, and the parameters with as many new ones as there is room for, or
        fewer by ``limit``. Raises ``ContextLengthExceeded``."""
        asked = {"model": model.name, "prompt": params["prompt"]}
        count = (await model.peer.ask("/count_token", asked, CountTokenReply)).count
        context = model.facts.context_length
        if count >= context:
            raise ContextLengthExceeded(
                f"The model's context is {context} tokens; the prompt alone has {count}."
            )
        room = context - count
        return count, params | {"max_new_tokens": room if limit is None else min(room, limit)}


def _share(row: Worker) -> int:
    """How many sequences of one request a worker is given at once."""
    return (row.limit + 1) // 2


async def _generate(
    model: _Model, params: dict[str, Any], prompt_tokens: int
) -> AsyncGenerator[Delta, None]:
    """The steps of one answer. Closing the generator hangs up on the worker."""
    response = await model.peer.open("/worker_generate_stream", params)
    reader = FrameReader(logprobs=params["logprobs"] is not None)
    frames = FrameDecoder()
    try:
        async for piece in response:
            for frame in frames.feed(piece):
                delta = reader.add(frame)
                if delta is not None:
                    yield delta
    except BadFrame as error:
        raise UpstreamFailed(f"The model's worker sent nonsense: {error}") from None
    finally:
        response.close()
    if frames.partial:
        raise UpstreamFailed("The model's worker stopped in the middle of a frame.")
    yield reader.end(reader.usage or await _counted(model, prompt_tokens, reader.text))


async def _counted(model: _Model, prompt_tokens: int, text: str) -> Usage:
    """The usage of a worker that does not tell it."""
    asked = {"model": model.name, "prompt": text}
    reply = await model.peer.ask("/count_token", asked, CountTokenReply)
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=reply.count)


async def _embedded(peer: Peer, asked: dict[str, Any], count: int) -> tuple[list[list[float]], int]:
    """Vectors of a batch and its tokens."""
    try:
        reply = await peer.ask("/worker_get_embeddings", asked, _Embeddings)
    except RouteMissing:
        raise Unsupported("This model makes no embeddings.", param="model") from None
    if len(reply.embedding) != count:
        raise UpstreamFailed("The model's worker sent another number of vectors than asked for.")
    return reply.embedding, reply.token_num


def _packed(vector: list[float]) -> str:
    """OpenAI's ``encoding_format: base64``: little-endian 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
