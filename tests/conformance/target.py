"""What the suite is run against, and what may be expected of it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import pytest


class Can(StrEnum):
    """What not every engine or provider can do. Chats, streams, stop strings, limits, usage and
    proper errors are expected of all."""

    COMPLETIONS = "completions"
    TOKEN_IDS = "token_ids"
    ECHO = "echo"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    N = "n"
    SEED = "seed"
    TOP_K = "top_k"
    LOGIT_BIAS = "logit_bias"
    LOGPROBS = "logprobs"
    JSON = "json"
    TOOLS = "tools"
    TOKEN_CHECK = "token_check"
    STOP_TOKENS = "stop_tokens"
    DEADLINE = "deadline"
    """A stream can be made to fail half way: by the header ``x-request-timeout``."""


@dataclass(frozen=True)
class Target:
    """A model at a server.

    ``base_url`` ends in ``/v1``. ``end_tokens`` are the ids of the tokens that end an answer: where
    they are known, answers can be made to last. ``render`` gives the prompt that the model's chat
    template makes of one user message. ``health`` is the URL that tells how many requests the
    model's worker has at work (``running``). ``max_body`` is the largest body taken, in bytes. A
    model that does not write (``writes``) reads at most ``context`` tokens of an input, or a pair.
    """

    base_url: str
    model: str
    key: str
    can: frozenset[Can]
    context: int
    end_tokens: tuple[int, ...] = ()
    render: Callable[[str], str] | None = None
    health: str | None = None
    max_body: int | None = None
    writes: bool = True

    @property
    def root(self) -> str:
        """The server, without ``/v1``."""
        return self.base_url.removesuffix("/v1")

    @property
    def endless(self) -> dict[str, int]:
        """A ``logit_bias`` under which an answer ends by its limit only."""
        if not self.end_tokens:
            pytest.skip("it is not known which tokens end an answer")
        return {str(token): -100 for token in self.end_tokens}

    def need(self, *abilities: Can) -> None:
        """Skips the test where the target lacks one of them."""
        for ability in abilities:
            if ability not in self.can:
                pytest.skip(f"{self.model} is not expected to do {ability}")
