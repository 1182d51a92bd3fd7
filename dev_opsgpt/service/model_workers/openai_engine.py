"""A provider that speaks OpenAI's dialect as an engine: bytes are relayed on OpenAI's routes, and
read as deltas for FastChat's."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec

from dev_opsgpt.protocol.errors import ApiError, UpstreamFailed
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.service.model_workers.engine import ProviderEngine
from dev_opsgpt.service.model_workers.openai import OpenAIWorker
from dev_opsgpt.service.model_workers.outcomes import answered
from dev_opsgpt.service.model_workers.upstream import Answer
from dev_opsgpt.transport.asgi import send_body
from dev_opsgpt.transport.server import Send
from dev_opsgpt.worker.engine import Abilities, Delta
from dev_opsgpt.worker.openai_stream import read_stream
from dev_opsgpt.worker.relay import Fields, pass_on

CHAT, COMPLETIONS, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"
RERANK = "/rerank"
# The methods by which a class takes a route over from the relay.
_METHODS = {
    CHAT: ("do_chat", "validate_messages"),
    COMPLETIONS: ("do_completion",),
    EMBEDDINGS: ("do_embeddings",),
    RERANK: (),
}
# Statuses that say something about the client's request, or tell the client to wait.
_CLIENTS_OWN = frozenset({400, 404, 409, 413, 422, 429})
_LARGEST_ERROR = 1 << 20
_LARGEST_EMBEDDINGS = 256 << 20


class OpenAIEngine(ProviderEngine):
    """Serves a model through an ``OpenAIWorker``.

    The provider judges the request, so every field reaches it; only ``model`` becomes the name
    that it knows. Its answer comes back unchanged, ``model`` included. ``context`` is the model's
    context in tokens, where the configuration tells it.
    """

    def __init__(
        self,
        worker: OpenAIWorker,
        *,
        name: str | None = None,
        limit: int = 5,
        default_params: Mapping[str, Any] | None = None,
        context: int | None = None,
    ) -> None:
        super().__init__(worker, name=name, limit=limit, default_params=default_params)
        self._openai = worker
        self._context = context

    @property
    def abilities(self) -> Abilities:
        """Unknown where chats are relayed: any model may be behind the provider's API, and the
        class's ``context_len`` is no more than a default then."""
        if self.relays(CHAT):
            return Abilities(context_length=self._context)
        return super().abilities

    def relays(self, path: str) -> bool:
        """Whether a route is relayed: it is, unless the class has a method of its own for it."""
        return not any(
            getattr(type(self._openai), name) is not getattr(OpenAIWorker, name)
            for name in _METHODS[path]
        )

    async def relay(
        self, path: str, fields: Fields, send: Send, *, client_key: str | None = None
    ) -> None:
        """Asks the provider and passes its answer on; see ``worker/relay.py``."""
        worker = self._openai
        for key, value in self._missing(fields) if path in (CHAT, COMPLETIONS) else ():
            fields[key] = msgspec.Raw(msgspec.json.encode(value))
        fields["model"] = msgspec.Raw(msgspec.json.encode(self._model(path)))
        body = msgspec.json.encode(fields)
        async with worker.post(path, body, client_key=client_key) as answer:
            if answer.status == 200:
                await pass_on(answer, send, self.mask)
                return
            await self._refuse(answer, send, client_key)

    def _missing(self, fields: Fields) -> list[tuple[str, Any]]:
        given = set(fields)
        if "max_completion_tokens" in given:
            given.add("max_tokens")
        return [pair for pair in self.defaults.items() if pair[0] not in given]

    async def _refuse(self, answer: Answer, send: Send, client_key: str | None) -> None:
        """Sends the provider's error, or raises what it stands for."""
        body = await answer.read(_LARGEST_ERROR)
        if answer.status not in _CLIENTS_OWN or not _is_openai_error(body):
            raise self._error(answer, body, client_key)
        again = answer.header(b"retry-after")
        headers = {"retry-after": again.decode("latin-1")} if again else {}
        hidden = self.mask(body.decode(errors="replace")).encode()
        await send_body(send, answer.status, hidden, headers=headers)

    def _error(self, answer: Answer, body: bytes, client_key: str | None = None) -> Exception:
        own = bool(self._openai.api_key) or not client_key
        return answered(answer.status, body, self.mask, retry_after=answer.retry_after, own=own)

    def _model(self, path: str) -> str | None:
        worker = self._openai
        return (worker.embed_model if path == EMBEDDINGS else None) or worker.version

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        """The provider's stream, read."""
        steps = (
            self._stream(CHAT, request, index)
            if self.relays(CHAT)
            else super().chat(request, index=index)
        )
        async with aclosing(steps) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(
        self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
    ) -> AsyncGenerator[Delta, None]:
        """The provider's stream, read."""
        one = request.model_copy(update={"prompt": prompt, "echo": None, "best_of": None})
        steps = (
            self._stream(COMPLETIONS, one, index)
            if self.relays(COMPLETIONS)
            else super().complete(request, prompt, index=index)
        )
        async with aclosing(steps) as deltas:
            async for delta in deltas:
                yield delta

    async def _stream(
        self, path: str, request: ChatRequest | CompletionRequest, index: int
    ) -> AsyncGenerator[Delta, None]:
        given = request.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)
        fields = dict(self._missing(given)) | given | {"model": self._model(path), "stream": True}
        fields.pop("n", None)
        if request.seed is not None:
            fields["seed"] = request.seed + index
        if self._openai.sends_stream_options:
            fields["stream_options"] = {"include_usage": True}
        try:
            async with (
                self._asked(path, fields) as answer,
                aclosing(read_stream(answer.body)) as steps,
            ):
                async for delta in steps:
                    yield delta
        except ApiError as error:
            error.message = self.mask(error.message)
            raise

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[list[list[float]], int]:
        """The provider's embeddings, in the order of the inputs."""
        if not self.relays(EMBEDDINGS):
            return await super().embed(inputs, request)
        fields: dict[str, Any] = {"model": self._model(EMBEDDINGS), "input": inputs}
        if request.dimensions is not None:
            fields["dimensions"] = request.dimensions
        async with self._asked(EMBEDDINGS, fields) as answer:
            data = await answer.read(_LARGEST_EMBEDDINGS)
        try:
            found = msgspec.json.decode(data, type=_Embeddings)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UpstreamFailed("The provider's embeddings are not in OpenAI's form.") from None
        rows = sorted(found.data, key=lambda row: row.index)
        if len(rows) != len(inputs):
            raise UpstreamFailed(f"The provider gave {len(rows)} embeddings for {len(inputs)}.")
        return [row.embedding for row in rows], found.usage.prompt_tokens

    @asynccontextmanager
    async def _asked(self, path: str, fields: dict[str, Any]) -> AsyncIterator[Answer]:
        async with self._openai.post(path, msgspec.json.encode(fields)) as answer:
            if answer.status != 200:
                raise self._error(answer, await answer.read(_LARGEST_ERROR))
            yield answer


class _Embedding(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    usage: _Usage = msgspec.field(default_factory=_Usage)


def _is_openai_error(body: bytes) -> bool:
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(data, dict) and isinstance(data.get("error"), dict)
