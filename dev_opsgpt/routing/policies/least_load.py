"""``least_load``: the smallest share of its capacity in use; equals take turns."""

from collections.abc import Sequence

from dev_opsgpt.routing.candidate import Asked, C, Policy
from dev_opsgpt.routing.load import load, nth_least


class LeastLoad(Policy):
    """The candidate with the least (running + waiting) / (limit * speed).

    Equals take turns, so an idle fleet is used evenly.
    """

    _turn = -1

    def choose(self, candidates: Sequence[C], asked: Asked, now: float) -> C | None:
        """Looks at every candidate."""
        self._turn += 1
        return candidates[nth_least([load(candidate) for candidate in candidates], self._turn)]
