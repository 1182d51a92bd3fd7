"""``round_robin``: one after the other, whatever their load."""

from collections.abc import Sequence

from dev_opsgpt.routing.candidate import Asked, C, Policy


class RoundRobin(Policy):
    """The candidate whose turn it is."""

    _turn = -1

    def choose(self, candidates: Sequence[C], asked: Asked, now: float) -> C | None:
        """Looks at none of them."""
        self._turn += 1
        return candidates[self._turn % len(candidates)]
