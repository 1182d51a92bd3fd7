"""A histogram as cheap as counting can be in Python: one bisection, two additions."""

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts values by upper bounds. ``counts`` has one number a bound, each for its own step
    only, and one for all that is above; ``total`` is the sum of the values.

    prometheus_client's own histogram takes a lock and walks its bounds one by one.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts one value; one that is equal to a bound belongs to it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
