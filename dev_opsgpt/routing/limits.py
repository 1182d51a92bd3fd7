"""How much a key may use: sliding windows, budget periods, and how a wait is written. Pure.

A window is a row of 64-bit cells, in whatever memory the caller keeps it, so that the same code
counts for one process and for several that share a file.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Period = Literal["total", "day", "month"]

# A minute in tenths of a second. The newest bucket is filling while the oldest is still counted:
# whatever is counted was admitted within the last 60 s, so nobody is refused below the limit; and
# everything of the last 59.9 s is counted, so nobody gets more than it.
BUCKETS = 600
PER_SECOND = 10
# After so many buckets the total is added up anew: what a process that was killed between two
# writes left wrong is right again within seconds.
AUDIT = 64

LAST, TOTAL, FIRST = 0, 1, 2
CELLS = FIRST + BUCKETS
_NOTHING = memoryview(bytes(BUCKETS * 8)).cast("Q")


class Window:
    """How much was used within the last minute. A bucket's number is the time in tenths of a
    second, rounded down.

    ``cells`` are CELLS of 64 bits, all zero at first: the newest bucket's number, the total, and
    the buckets. No cell can overflow before 2**64 units a minute. Whoever shares the cells with
    others holds their lock for each call. Where a call is interrupted for ever, the total is at
    worst too small.
    """

    __slots__ = ("_cells",)

    def __init__(self, cells: "memoryview[int]") -> None:
        self._cells = cells

    def used(self, bucket: int) -> int:
        """What the last minute's total is, the minute that ends with ``bucket``; later calls go by
        the newest bucket so far."""
        cells = self._cells
        last = cells[LAST]
        if last - BUCKETS < bucket <= last:
            return cells[TOTAL]
        return self._advance(cells, last, bucket)

    def add(self, amount: int) -> int:
        """Counts more in the newest bucket, whose number is given. To be called after ``used``."""
        cells = self._cells
        last = cells[LAST]
        cells[FIRST + last % BUCKETS] += amount
        cells[TOTAL] += amount
        return last

    def correct(self, bucket: int, amount: int) -> None:
        """Changes what was counted in a bucket by ``amount``. For a bucket that is out of the
        window, more is counted as used now, and less is nothing. To be called after ``used``."""
        cells = self._cells
        last = cells[LAST]
        if not last - BUCKETS < bucket <= last:
            if amount > 0:
                self.add(amount)
            return
        place = FIRST + bucket % BUCKETS
        # Not below zero: somebody may have lost count, see above.
        cells[place] = max(0, cells[place] + amount)
        cells[TOTAL] = max(0, cells[TOTAL] + amount)

    def frees_at(self, amount: int) -> float:
        """The time in seconds at which at least ``amount`` of what is counted will have left."""
        cells = self._cells
        last = cells[LAST]
        for bucket in range(last - BUCKETS + 1, last + 1):
            amount -= cells[FIRST + bucket % BUCKETS]
            if amount <= 0:
                return (bucket + BUCKETS) / PER_SECOND
        return (last + BUCKETS) / PER_SECOND

    def empty_at(self) -> float:
        """The time in seconds at which all that is counted will have left; it may be past."""
        cells = self._cells
        last = cells[LAST]
        for bucket in range(last, last - BUCKETS, -1):
            if cells[FIRST + bucket % BUCKETS]:
                return (bucket + BUCKETS) / PER_SECOND
        return 0.0

    def _advance(self, cells: "memoryview[int]", last: int, bucket: int) -> int:
        # One far back: the clock began anew, and what is here is of another life of the machine.
        if bucket < last or bucket - last >= BUCKETS:
            cells[TOTAL] = 0
            cells[FIRST:] = _NOTHING
            cells[LAST] = bucket
            return 0
        gone = [FIRST + number % BUCKETS for number in range(last + 1, bucket + 1)]
        total = max(0, cells[TOTAL] - sum([cells[place] for place in gone]))
        cells[TOTAL] = total
        for place in gone:
            cells[place] = 0
        if bucket // AUDIT != last // AUDIT:
            cells[TOTAL] = total = sum(cells[FIRST:])
        cells[LAST] = bucket
        return total


@dataclass(frozen=True, slots=True)
class Span:
    """One budget period: a number that tells it from the others of its kind, and its bounds in
    Unix seconds; one that never ends ends at infinity."""

    number: int
    begin: float
    end: float


def span(period: Period, at: float) -> Span:
    """The budget period, in UTC, that a Unix time lies in."""
    if period == "total":
        return Span(1, 0.0, math.inf)
    moment = datetime.fromtimestamp(at, UTC)
    begin = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "month":
        begin = begin.replace(day=1)
        end = (begin + timedelta(days=31)).replace(day=1)
    else:
        end = begin + timedelta(days=1)
    return Span(begin.toordinal(), begin.timestamp(), end.timestamp())


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them in its headers: ``120ms``, ``1s``, ``7.66s``, ``6m0s``; never
    rounded down."""
    milliseconds = max(0, math.ceil(round(seconds * 1000, 3)))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
