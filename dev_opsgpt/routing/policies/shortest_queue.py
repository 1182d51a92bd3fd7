"""FastChat's ``shortest_queue``: the fewest requests for its speed; of equals the first."""

from collections.abc import Sequence
from math import inf
from random import Random

from dev_opsgpt.routing.candidate import C, Candidate


def shortest_queue(candidates: Sequence[C], turn: int, rng: Random) -> C | None:
    """The candidate with the least queue_length / speed; of equals the first."""
    return min(candidates, key=_length, default=None)


def _length(candidate: Candidate) -> float:
    return candidate.queue_length / candidate.speed if candidate.speed > 0 else inf
