"""What the parts of the transformers engine say to each other: a loaded model, one sequence's
sampling and constraint, its tokens, and the batcher that makes them."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in memory.

    ``model`` is a transformers ``PreTrainedModel`` in eval mode, ``tokenizer`` its tokenizer.
    ``context_length`` is in tokens, prompt and answer together. ``end_tokens`` are the ids that end
    an answer, from the generation configuration. ``vocabulary`` is the width of the logits.
    """

    model: Any
    tokenizer: Any
    context_length: int
    end_tokens: frozenset[int]
    vocabulary: int
    device: "torch.device"


@dataclass(frozen=True)
class Sampling:
    """How the next tokens of one sequence are chosen; the defaults change nothing.

    ``temperature`` 0 is greedy. ``top_k`` 0 takes every token. ``logit_bias`` is by token id.
    ``logprobs`` None gives none; k gives the chosen token's and those of the k likeliest, of the
    model's own distribution, before temperature and truncation. A token of ``end_tokens`` ends the
    sequence and is not among its tokens.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logit_bias: dict[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    end_tokens: frozenset[int] = frozenset()


class Constraint(Protocol):
    """A grammar that one sequence must follow. It belongs to that sequence alone."""

    def mask(self) -> "NDArray[np.int32] | None":
        """The tokens allowed next, a bit a token, 32 to a word, lowest first; None allows all."""
        ...

    def accept(self, token: int) -> None:
        """Goes on by a token that was chosen."""
        ...

    @property
    def done(self) -> bool:
        """Whether the text is complete and nothing may follow."""
        ...


class Token(msgspec.Struct):
    """One generated token. ``top`` holds the likeliest as (id, natural logarithm), likeliest first.

    The last one has ``finish``; where the sequence ended at an end token or by its constraint, its
    ``id`` is None and there is no token with it. ``cached`` is said with the first: how many tokens
    of the prompt were not computed anew.
    """

    id: int | None
    logprob: float | None = None
    top: list[tuple[int, float]] = []
    finish: Literal["stop", "length"] | None = None
    cached: int = 0


class Batcher(Protocol):
    """Runs many sequences at once; they join and leave between two steps of the model."""

    async def start(self) -> None:
        """Returns when sequences are taken."""
        ...

    async def stop(self) -> None:
        """Ends every sequence (each raises ``Unavailable``) and the thread that runs the model."""
        ...

    def generate(
        self, prompt: list[int], sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncGenerator[Token, None]:
        """The tokens that continue the prompt. Closing the generator takes the sequence out before
        the next step. Raises ``ContextLengthExceeded`` for a prompt that leaves no room, and
        ``InternalError`` where the model fails."""
        ...

    @property
    def running(self) -> int:
        """How many sequences are in the batch or wait for it."""
        ...
