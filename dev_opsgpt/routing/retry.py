"""How many retries there may be, and how long each waits. Pure; times are in seconds."""

from random import Random

from dev_opsgpt.routing.tally import Tally

# Retries are weighed against the requests of so many seconds.
WINDOW = 10.0
# The first retry goes to a replica that nothing is known against: it hardly waits.
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
_GROWTH = 4.0


def backoff(attempt: int, rng: Random) -> float:
    """Seconds before a retry; ``attempt`` is 1 for the first one, 2 for the second.

    Full jitter: anything from 0 to a ceiling of 0.02, 0.08, 0.32, then 0.5 seconds, so that
    requests that failed together do not come back together.
    """
    ceiling = FIRST_PAUSE * _GROWTH ** min(attempt - 1, 8)
    return rng.uniform(0.0, min(ceiling, LONGEST_PAUSE))


class RetryBudget:
    """Bounds retries to a ``share`` of the requests of the last seconds, so that they do not bury
    replicas that are in trouble already.

    ``floor_per_second`` retries are allowed whatever the share, as many of them at once as a
    second brings: with little traffic a share of it would be nothing.
    """

    __slots__ = ("_filled_at", "_floor", "_floor_left", "_floor_most", "_share", "_tally")

    def __init__(self, share: float, floor_per_second: float = 10.0) -> None:
        self._share = share
        self._floor = floor_per_second
        self._floor_most = max(1.0, floor_per_second) if floor_per_second else 0.0
        self._floor_left = self._floor_most
        self._filled_at = 0.0
        self._tally = Tally(WINDOW)

    def request(self, now: float) -> None:
        """Counts a client's request; its retries are not requests."""
        tally = self._tally
        if now >= tally.turn_at:
            tally.turn(now)
        tally.first += 1

    def allows(self, now: float) -> bool:
        """Whether a retry may be made now. Who makes it calls ``spend``."""
        self._fill(now)
        if self._floor_left >= 1:
            return True
        requests, retries = self._tally.recent(now)
        return retries + 1 <= self._share * requests

    def spend(self, now: float) -> bool:
        """Takes a retry out of the budget; false, and nothing taken, where none is left."""
        if not self.allows(now):
            return False
        if self._floor_left >= 1:
            self._floor_left -= 1
        self._tally.turn(now)
        self._tally.second += 1
        return True

    def _fill(self, now: float) -> None:
        earned = (now - self._filled_at) * self._floor
        self._floor_left = min(self._floor_most, self._floor_left + earned)
        self._filled_at = now
