"""One sequence while it is in the batcher: what the scheduler, the sampler and the model know."""

import random
from collections import Counter
from dataclasses import dataclass, field

from dev_opsgpt.engines.hf.blocks import Table
from dev_opsgpt.engines.hf.sequence import Constraint, Sampling


@dataclass(eq=False)
class Running:
    """A sequence: ``tokens`` is the prompt and what was generated, ``computed`` how many of them
    the model has seen and keeps the state of."""

    tokens: list[int]
    sampling: Sampling
    constraint: Constraint | None = None
    prompt_length: int = 0
    computed: int = 0
    cached: int | None = None
    """Tokens of the prompt that were not computed anew; None before it was let in."""
    table: Table = field(default_factory=Table)
    cancelled: bool = False
    """Set by the caller's thread; read between two steps."""

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)
        self._random = random.Random(self.sampling.seed)  # noqa: S311
        self._drawn: tuple[int, float] = 0, 0.0
        self.counts: Counter[int] = Counter()
        self._seen: dict[int, None] | None = None

    @property
    def generated(self) -> int:
        """How many tokens were generated."""
        return len(self.tokens) - self.prompt_length

    @property
    def pending(self) -> int:
        """How many tokens the model has to see before the next one is known; at least 1."""
        return len(self.tokens) - self.computed

    def number(self) -> float:
        """What decides about the next token: between 0 and 1, from a source of its own, so the same
        whatever else is in the batch, and however often a step is repeated."""
        if self._drawn[0] != len(self.tokens):
            self._drawn = len(self.tokens), self._random.random()
        return self._drawn[1]

    def seen(self) -> list[int]:
        """The distinct tokens of prompt and answer."""
        if self._seen is None:
            self._seen = dict.fromkeys(self.tokens)
        return list(self._seen)

    def append(self, token: int) -> None:
        """Goes on by a generated token."""
        self.tokens.append(token)
        self.counts[token] += 1
        if self._seen is not None:
            self._seen[token] = None
