"""Two counters over the last seconds, at a cost that does not depend on how much is counted."""

from collections import deque

SLICES = 10


class Tally:
    """Counts two kinds of events, ``first`` and ``second``, of which the ones of the last
    ``window`` seconds can be told.

    Time is cut into ten slices, so that what is told is of the last 0.9 to 1.0 windows. To count,
    call ``turn`` where ``now`` has reached ``turn_at``, then add to the counter: two steps instead
    of a method, because this is done for every request.
    """

    __slots__ = ("_marks", "_slice", "first", "second", "turn_at")

    def __init__(self, window: float) -> None:
        self.first = 0
        self.second = 0
        self.turn_at = 0.0
        self._slice = window / SLICES
        # What the counters said at the start of each slice, oldest first.
        self._marks = deque([(0, 0)], maxlen=SLICES)

    def turn(self, now: float) -> None:
        """Begins a new slice, where the last one is over."""
        if now < self.turn_at:
            return
        passed = 1 + (now - self.turn_at) / self._slice
        for _ in range(int(min(passed, SLICES))):
            self._marks.append((self.first, self.second))
        if passed < SLICES:
            self.turn_at += int(passed) * self._slice
        if self.turn_at <= now:  # after a long pause, or by rounding
            self.turn_at = now + self._slice

    def recent(self, now: float) -> tuple[int, int]:
        """How many of the first and of the second kind there were in the window."""
        self.turn(now)
        first, second = self._marks[0]
        return self.first - first, self.second - second

    def clear(self) -> None:
        """Forgets what was counted."""
        self._marks.clear()
        self._marks.append((self.first, self.second))
