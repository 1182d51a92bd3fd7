"""``least_latency``: the shortest time to the first token of late, times the load."""

from collections.abc import Sequence
from math import inf
from random import Random

from dev_opsgpt.routing.candidate import Asked, C, Policy
from dev_opsgpt.routing.load import load

# Seconds without a request after which what is known of a replica counts half, twice as many
# after which it counts a third, and so on: one that was slow once is tried again, the later the
# slower it was.
FADING = 5.0
# Seconds until a replica that has not answered yet is tried by another request.
PATIENCE = 1.0


class LeastLatency(Policy):
    """The candidate with the least ``first_token`` * (requests there, this one too) / limit.

    One of which nothing is known, and that is idle, is tried at once, by one request. While
    nothing is known of any, the load alone decides. Remembers when each replica was last chosen.
    """

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._chosen: dict[str, float] = {}

    def choose(self, candidates: Sequence[C], asked: Asked, now: float) -> C | None:
        """Looks at every candidate."""
        chosen = None
        least = inf
        times = self._chosen
        for candidate in candidates:
            seconds = getattr(candidate, "first_token", None)
            last = times.get(candidate.address)
            requests = candidate.running + candidate.waiting
            if seconds is not None:
                age = now - last if last is not None else 0.0
                cost = seconds * (1 + requests) / ((candidate.limit or 1) * (1 + age / FADING))
                if cost < least:
                    chosen, least = candidate, cost
            elif not requests and (last is None or now - last > PATIENCE):
                chosen = candidate
                break
        if chosen is None:
            chosen = min(candidates, key=load)
        times[chosen.address] = now
        return chosen

    def gone(self, address: str) -> None:
        """Forgets when it was chosen."""
        self._chosen.pop(address, None)
