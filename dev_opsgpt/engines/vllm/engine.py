"""The vLLM engine: vLLM's server for one model, one life after another.

Gateways send what is OpenAI's to the server itself (``direct``). The worker beside it registers,
beats with vLLM's own load, answers FastChat's routes, and passes on what is sent to it all the
same.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from dev_opsgpt.engines.vllm.figures import labelled
from dev_opsgpt.engines.vllm.keeper import Keeper
from dev_opsgpt.engines.vllm.options import VllmOptions
from dev_opsgpt.engines.vllm.server import VllmServer
from dev_opsgpt.engines.vllm.upstream import Answer, Embeddings, TokenCount, asked, read, stream
from dev_opsgpt.protocol.errors import ApiError, Unavailable, UpstreamFailed
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.masking import mask
from dev_opsgpt.transport.server import Send
from dev_opsgpt.worker.engine import Abilities, Delta, Direct, Load
from dev_opsgpt.worker.progress import Tell, silent
from dev_opsgpt.worker.relay import Fields, pass_on

log = logging.getLogger(__name__)

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
LARGEST_PAGE = 16 << 20
DRAIN_POLL = 0.1
# As many looks in a row must find nothing to do before it is believed.
LOOKS = 3


class VllmEngine:
    """A model in vLLM's hands, behind the ``Engine``, ``Hosted`` and ``Relay`` interfaces.
    ``progress`` is told how the first start goes on, as far as vLLM's own log tells."""

    def __init__(self, options: VllmOptions) -> None:
        self._names = options.names
        self._client = Client(read_timeout=options.read_timeout)
        self.progress: Tell = silent
        self._keeper = Keeper(options, self._client, lambda *news: self.progress(*news))

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer share, as vLLM tells them; 0 before it has started."""
        return self._keeper.context_length

    @property
    def abilities(self) -> Abilities:
        """Text held to JSON; tools where a parser for them was configured."""
        return Abilities(
            context_length=self.context_length or None,
            tools=self._keeper.tools or None,
            json_output=True,
        )

    @property
    def direct(self) -> Direct | None:
        """Where the server is now."""
        return self._keeper.direct

    @property
    def load(self) -> Load:
        """What vLLM had to do a moment ago."""
        return self._keeper.load

    async def start(self) -> None:
        """Starts vLLM and waits until it is healthy. Raises ``EngineError`` in one line."""
        await self._keeper.start()
        self.progress = silent

    async def stop(self) -> None:
        """Ends vLLM and all its processes."""
        await self._keeper.stop()
        self._client.close()

    async def measure(self) -> Load:
        """What vLLM has to do now; nothing between two lives."""
        return await self._keeper.measure()

    async def lives(self) -> AsyncGenerator[bool, None]:
        """See ``Hosted.lives``."""
        while True:
            yield await self._keeper.changes.get()

    async def drained(self, timeout: float) -> bool:
        """Waits until vLLM has nothing to do."""
        looks = 0
        try:
            async with asyncio.timeout(timeout):
                while looks < LOOKS and self.direct is not None:
                    load = await self.measure()
                    looks = 0 if load.running + load.waiting else looks + 1
                    await asyncio.sleep(DRAIN_POLL)
        except TimeoutError:
            return False
        return True

    async def figures(self, worker: str) -> bytes:
        """vLLM's own page, labelled with the worker and the model."""
        async with asked(self._client, self._server, "/metrics", method="GET") as response:
            page = await response.read(LARGEST_PAGE)
            if response.status != 200:
                raise UpstreamFailed(f"vLLM answered {response.status} for its metrics.")
        return labelled(page, {"model": self._names[0], "worker": worker})

    def relays(self, path: str) -> bool:
        """vLLM speaks OpenAI's dialect: everything is passed on."""
        return True

    async def relay(
        self, path: str, fields: Fields, send: Send, *, client_key: str | None = None
    ) -> None:
        """Asks vLLM and passes its answer on; a client's key stays here."""
        body = msgspec.json.encode(fields)
        async with asked(self._client, self._server, f"/v1{path}", body) as response:
            headers = list(response.headers.items())
            await pass_on(Answer(response.status, headers, aiter(response)), send, mask)

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        """vLLM's stream, read."""
        async with aclosing(self._stream(CHAT, _fields(request, index))) as steps:
            async for delta in steps:
                yield delta

    async def complete(
        self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
    ) -> AsyncGenerator[Delta, None]:
        """vLLM's stream, read."""
        fields = _fields(request, index) | {"prompt": prompt}
        fields.pop("echo", None)
        fields.pop("best_of", None)
        async with aclosing(self._stream(COMPLETIONS, fields)) as steps:
            async for delta in steps:
                yield delta

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[list[list[float]], int]:
        """vLLM's embeddings, in the order of the inputs."""
        fields: dict[str, Any] = {"model": request.model, "input": inputs}
        if request.dimensions is not None:
            fields["dimensions"] = request.dimensions
        found = await read(self._client, self._server, EMBEDDINGS, fields, Embeddings)
        rows = sorted(found.data, key=lambda row: row.index)
        if len(rows) != len(inputs):
            raise UpstreamFailed(f"vLLM gave {len(rows)} embeddings for {len(inputs)}.")
        return [row.embedding for row in rows], found.usage.prompt_tokens

    async def count_tokens(self, prompt: str | list[int] | ChatRequest) -> int:
        """Tokens of a text, of ids, or of messages under the model's chat template."""
        if isinstance(prompt, list):
            return len(prompt)
        fields: dict[str, Any] = {"model": self._names[0]}
        if isinstance(prompt, str):
            fields["prompt"] = prompt
        else:
            given = prompt.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)
            fields |= {name: given[name] for name in ("messages", "tools") if name in given}
        found = await read(self._client, self._server, "/tokenize", fields, TokenCount)
        return int(found.count)

    async def _stream(self, path: str, fields: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        try:
            async with aclosing(stream(self._client, self._server, path, fields)) as steps:
                async for delta in steps:
                    yield delta
        except ApiError as error:
            error.message = mask(error.message)
            raise

    @property
    def _server(self) -> VllmServer:
        server = self._keeper.server
        if server is None:
            raise Unavailable("The model's vLLM is being started again.", retry_after=5)
        return server


def _fields(request: ChatRequest | CompletionRequest, index: int) -> dict[str, Any]:
    """One sequence of a request, streamed with its usage."""
    given = request.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)
    given |= {"stream": True, "stream_options": {"include_usage": True}}
    given.pop("n", None)
    if request.seed is not None:
        given["seed"] = request.seed + index
    return given
