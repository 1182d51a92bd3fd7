"""Where requests wait while every replica is busy: bounded, the more important first. Pure."""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

# Bounds of what a client that was turned away is told, in seconds.
SHORTEST_RETRY = 1.0
LONGEST_RETRY = 60.0
# Weight of the latest pause between two departures in their mean.
_LATEST = 0.1

T = TypeVar("T", bound=Hashable)


class Full(Exception):
    """Nobody waits who is less important than the one who came."""


class WaitingRoom(Generic[T]):
    """At most ``size`` items wait. The highest priority goes first, the oldest among equals.

    A full room takes in one with a higher priority by sending away the newest of the lowest. Every
    step is O(1) in the number that wait. ``now`` is in monotonic seconds.
    """

    __slots__ = ("_by_priority", "_gap", "_last", "_levels", "_priorities", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._priorities: dict[T, int] = {}
        self._by_priority: dict[int, OrderedDict[T, None]] = {}
        # The priorities of those that wait, lowest first: few, whoever waits.
        self._levels: list[int] = []
        # The mean of the pauses between departures while somebody waited, and when the last
        # such pause began.
        self._gap: float | None = None
        self._last = 0.0

    def __len__(self) -> int:
        return len(self._priorities)

    def __contains__(self, item: T) -> bool:
        return item in self._priorities

    def enter(self, item: T, priority: int, now: float) -> T | None:
        """Lets an item wait; gives the one that was sent away for it. Raises ``Full``, and
        ``ValueError`` for an item that waits already."""
        if item in self._priorities:
            raise ValueError("it waits already")
        evicted = None
        if len(self) >= self.size:
            if not self._levels or priority <= self._levels[0]:
                raise Full
            evicted, _ = self._by_priority[self._levels[0]].popitem(last=True)
            self._forget(evicted)
        elif not self._priorities:
            self._last = now
        self._priorities[item] = priority
        lane = self._by_priority.get(priority)
        if lane is None:
            lane = self._by_priority[priority] = OrderedDict()
            insort(self._levels, priority)
        lane[item] = None
        return evicted

    def first(self) -> T:
        """The item whose turn it is; it goes on waiting. Raises ``IndexError`` where none waits."""
        return next(iter(self._by_priority[self._levels[-1]]))

    def pop(self, now: float) -> T:
        """The item whose turn it is; it waits no more. Raises ``IndexError`` where none waits."""
        item, _ = self._by_priority[self._levels[-1]].popitem(last=False)
        self._forget(item)
        gap = now - self._last
        self._gap = gap if self._gap is None else self._gap + _LATEST * (gap - self._gap)
        self._last = now
        return item

    def leave(self, item: T) -> bool:
        """An item gives up; false when it does not wait (any more)."""
        if item not in self._priorities:
            return False
        del self._by_priority[self._priorities[item]][item]
        self._forget(item)
        return True

    def retry_after(self, now: float) -> float:
        """Seconds until all who wait now will have gone, at the pace of late; 1 to 60."""
        stalled = now - self._last if self._priorities else 0.0
        seconds = len(self) * max(self._gap or 0.0, stalled)
        return min(max(seconds, SHORTEST_RETRY), LONGEST_RETRY)

    def _forget(self, item: T) -> None:
        """Takes an item that has left its lane out of the rest."""
        priority = self._priorities.pop(item)
        if not self._by_priority[priority]:
            del self._by_priority[priority]
            del self._levels[bisect_left(self._levels, priority)]
