"""``power_of_two``: the less loaded of two that chance names."""

from collections.abc import Sequence

from dev_opsgpt.routing.candidate import Asked, C, Policy
from dev_opsgpt.routing.load import load


class PowerOfTwo(Policy):
    """Of two different candidates, drawn at random, the one with the smaller share of its capacity
    in use.

    Nearly as even as the least of all, at a cost that does not grow with the fleet; and gateways
    that know the loads only as they were a while ago do not all run to the same replica.
    """

    def choose(self, candidates: Sequence[C], asked: Asked, now: float) -> C | None:
        """Looks at two candidates."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        first = int(self._rng.random() * count)
        # The second is drawn from the others, those behind the first moved up by one.
        second = int(self._rng.random() * (count - 1))
        one, other = candidates[first], candidates[second + (second >= first)]
        return one if load(one) <= load(other) else other
