"""FastChat's ``shortest_queue``: the fewest requests for its speed; of equals the first."""

from collections.abc import Sequence
from math import inf

from dev_opsgpt.routing.candidate import Asked, C, Candidate, Policy


class ShortestQueue(Policy):
    """The candidate with the least queue_length / speed; of equals the first."""

    def choose(self, candidates: Sequence[C], asked: Asked, now: float) -> C | None:
        """Looks at every candidate."""
        return min(candidates, key=_length)


def _length(candidate: Candidate) -> float:
    return candidate.queue_length / candidate.speed if candidate.speed > 0 else inf
