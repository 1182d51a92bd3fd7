"""``least_load``, the default: the smallest share of its capacity in use; equals take turns."""

from collections.abc import Sequence
from math import inf
from random import Random

from dev_opsgpt.routing.candidate import C, Candidate


def least_load(candidates: Sequence[C], turn: int, rng: Random) -> C | None:
    """The candidate with the least (running + waiting) / (limit * speed).

    Equals take turns, so an idle fleet is used evenly.
    """
    if not candidates:
        return None
    loads = [_load(candidate) for candidate in candidates]
    least = min(loads)
    equals = [candidate for candidate, load in zip(candidates, loads, strict=True) if load == least]
    return equals[turn % len(equals)]


def _load(candidate: Candidate) -> float:
    capacity = max(1, candidate.limit) * candidate.speed
    return (candidate.running + candidate.waiting) / capacity if capacity > 0 else inf
