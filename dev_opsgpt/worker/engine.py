"""What a worker needs of an engine: the one small interface that every kind of model stands behind.

An engine yields the steps of *one* generated sequence. Everything a client sees, streamed or
plain, OpenAI's or FastChat's, is put together from these steps by the worker's surfaces.
"""

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from dev_opsgpt.protocol.fastchat import Abilities, Direct, Load
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.rerank import RerankRequest
from dev_opsgpt.protocol.steps import Delta, TokenLogprob, ToolCallDelta, Usage

__all__ = [
    "Abilities",
    "Delta",
    "Direct",
    "Engine",
    "EngineError",
    "Hosted",
    "Load",
    "Reranker",
    "TokenEnds",
    "TokenLogprob",
    "ToolCallDelta",
    "Usage",
]


class EngineError(Exception):
    """An engine could not start; the message is one clear line for a person."""


class Engine(Protocol):
    """A loaded model, or a provider that stands for one.

    ``chat`` and ``complete`` raise ``ApiError`` before the first step for a request they cannot
    serve, and between steps for a fault on the way. Closing the generator ends the work at once.
    ``index`` numbers the sequences of one request (``n``): a request with a seed uses seed + index.
    """

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer share."""
        ...

    @property
    def abilities(self) -> Abilities:
        """What the model can do, as far as that is known once it has started. Told to the
        controller, so that requests which need more go elsewhere."""
        ...

    async def start(self) -> None:
        """Load. Raises ``EngineError``."""
        ...

    async def stop(self) -> None:
        """Free everything."""
        ...

    def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        """Answer the messages."""
        ...

    def complete(
        self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
    ) -> AsyncGenerator[Delta, None]:
        """Continue the prompt, a text or token ids. The prompt itself is not echoed."""
        ...

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[list[list[float]], int]:
        """A vector for each input, and the tokens they had together."""
        ...

    async def count_tokens(self, prompt: str | list[int] | ChatRequest) -> int:
        """Tokens of a text, of ids, or of messages under the model's chat template."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """An engine that can rerank, beside what every engine does. One whose model cannot after all
    raises ``Unsupported``."""

    async def rerank(self, request: RerankRequest) -> tuple[list[float], int]:
        """How well each document answers the query, more being better, and the tokens that were
        read. Raises ``ApiError``."""
        ...


@runtime_checkable
class TokenEnds(Protocol):
    """An engine that ends answers at ``stop_token_ids``; others refuse requests that have them."""

    def ends_at(self, tokens: list[int]) -> list[int]:
        """Those of the token ids that the model has."""
        ...


@runtime_checkable
class Hosted(Protocol):
    """What an engine is besides whose model runs in a server of its own beside the worker. Gateways
    ask that server without the worker in between, so the worker does not see all of its requests;
    and it can end and come back while the worker lives."""

    @property
    def direct(self) -> Direct | None:
        """Where the server is in its present life, None between two."""
        ...

    @property
    def load(self) -> Load:
        """What the server had to do when it was last asked: for beats, which do not wait."""
        ...

    async def measure(self) -> Load:
        """What it has to do now."""
        ...

    def lives(self) -> AsyncGenerator[bool, None]:
        """False whenever the server has ended, true whenever it serves again; for one reader, and
        without the life that ``start`` began."""
        ...

    async def figures(self, worker: str) -> bytes:
        """The server's figures as Prometheus reads them, labelled with the worker's address. Raises
        ``ApiError``."""
        ...

    async def drained(self, timeout: float) -> bool:
        """Waits until the server has nothing to do, ``timeout`` seconds at most; says whether it
        came so."""
        ...
