"""A replica's circuit breaker: one that keeps failing is left alone for a while, then one request
tries it again. Pure; ``now`` is in monotonic seconds."""

from dataclasses import dataclass
from typing import Literal

from dev_opsgpt.routing.tally import Tally

State = Literal["closed", "half_open", "open"]


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When a breaker opens, and for how long.

    It opens after ``failures`` failures in a row, or when of the requests of the last ``window``
    seconds at least ``failures``, and at least the share ``failure_rate``, failed. It stays open
    for ``open_for`` seconds, doubled with every failed try up to ``open_for_most``.
    """

    failures: int = 5
    failure_rate: float = 0.5
    window: float = 30.0
    open_for: float = 5.0
    open_for_most: float = 60.0


class Breaker:
    """Guards one replica.

    Closed, it lets everything through; ``is_closed`` is an attribute, so that asking costs next to
    nothing. Open, it lets nothing through until its pause is over; then it is half open and lets
    one request through, the trial. A trial that succeeds closes it; one that fails opens it again
    for twice as long; one that is not heard of again within such a pause makes room for the next.

    What counts as a failure is the caller's to say: what the replica did wrong, never what its
    client did. Outcomes of requests that were on their way when it opened are of the past, and
    move nothing until there is a trial; then they cannot be told from the trial's, and count.
    """

    __slots__ = ("_in_a_row", "_next_at", "_options", "_pause", "_tally", "_trying", "is_closed")

    def __init__(self, options: BreakerOptions) -> None:
        self.is_closed = True
        self._options = options
        self._tally = Tally(options.window)
        self._in_a_row = 0
        self._pause = 0.0
        self._next_at = 0.0
        self._trying = False

    def allows(self, now: float) -> bool:
        """Whether a request may be sent to the replica. Who then sends one calls ``taken``."""
        return self.is_closed or now >= self._next_at

    def taken(self, now: float) -> None:
        """A request is sent: if the breaker is not closed, it is the trial. One that is sent
        against its word, for want of another replica, is a trial too."""
        if not self.is_closed:
            self._trying = True
            self._next_at = now + self._pause

    def succeeded(self, now: float) -> None:
        """The replica answered a request as it should."""
        if self.is_closed:
            tally = self._tally
            if now >= tally.turn_at:
                tally.turn(now)
            tally.first += 1
            self._in_a_row = 0
        elif self._trying:
            self._trying = False
            self._in_a_row = 0
            self._tally.clear()
            self.is_closed = True

    def failed(self, now: float) -> bool:
        """The replica failed a request; true when this opened the breaker, or kept it open."""
        options = self._options
        if not self.is_closed:
            if self._trying:
                self._open(now, min(self._pause * 2, options.open_for_most))
                return True
            return False
        self._in_a_row += 1
        self._tally.turn(now)
        self._tally.second += 1
        if self._in_a_row < options.failures and not self._fails_often(now):
            return False
        self._open(now, min(options.open_for, options.open_for_most))
        return True

    def state(self, now: float) -> State:
        """What it is now, for people and metrics."""
        if self.is_closed:
            return "closed"
        return "half_open" if self._trying or now >= self._next_at else "open"

    def _fails_often(self, now: float) -> bool:
        good, bad = self._tally.recent(now)
        options = self._options
        return bad >= options.failures and bad >= options.failure_rate * (good + bad)

    def _open(self, now: float, pause: float) -> None:
        self.is_closed = False
        self._trying = False
        self._pause = pause
        self._next_at = now + pause
