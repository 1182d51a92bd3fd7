"""FastChat's ``lottery``: by chance, weighted by speed."""

from collections.abc import Sequence
from itertools import accumulate
from random import Random

from dev_opsgpt.routing.candidate import C

# FastChat's threshold: a fleet whose speeds sum to less than this has no one to choose.
_NOTHING = 1e-4


def lottery(candidates: Sequence[C], turn: int, rng: Random) -> C | None:
    """A candidate with the probability speed / sum of speeds; None when that sum is about 0."""
    marks = list(accumulate(candidate.speed for candidate in candidates))
    if not marks or marks[-1] < _NOTHING:
        return None
    ticket = rng.random() * marks[-1]
    for candidate, mark in zip(candidates, marks, strict=True):
        if ticket < mark:
            return candidate
    # Rounding can lift the ticket to the very sum: the last one that may win has it.
    return next(candidate for candidate in reversed(candidates) if candidate.speed > 0)
