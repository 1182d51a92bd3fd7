"""``/watch``: the table pushed to a gateway as lines of JSON.

Changes are gathered for a moment and told by address, so a watcher owes the controller at most
one entry for each address however slowly it reads; one that falls too far behind is given the
whole table anew.
"""

import asyncio
from collections.abc import Callable
from math import inf

import msgspec

from dev_opsgpt.routing.cards import Standing
from dev_opsgpt.routing.table import Table
from dev_opsgpt.routing.updates import Change, Models, Ping, Reason, Removed, Snapshot

GATHER = 0.1
GATHER_LOAD = 0.5
PING_AFTER = 2.0
PENDING_LIMIT = 10_000
# The event loop's timers count whole milliseconds and may end in the one before: without it they
# would be set again and again until the moment has come.
LATE = 0.001


class Pending:
    """What a watcher is still to be told: at first the whole table, then changes. Pure; ``now``
    in monotonic seconds.

    ``due`` is when to tell it, None while there is nothing.
    """

    def __init__(self, limit: int = PENDING_LIMIT) -> None:
        self.due: float | None = -inf
        self._limit = limit
        self._changed: dict[str, None] = {}
        self._removed: dict[str, Reason] = {}
        self._everything = True

    def __len__(self) -> int:
        return len(self._changed) + len(self._removed)

    def changed(self, address: str, now: float, *, load_only: bool = False) -> None:
        """A worker came or changed; what only concerns its load may wait longer."""
        self._removed.pop(address, None)
        self._changed[address] = None
        self._added(now + (GATHER_LOAD if load_only else GATHER))

    def removed(self, address: str, reason: Reason, now: float) -> None:
        """A worker went."""
        self._changed.pop(address, None)
        self._removed[address] = reason
        self._added(now + GATHER)

    def take(self, table: Table) -> Change | Snapshot:
        """The message to tell; what it says then counts as told."""
        if self._everything:
            message: Change | Snapshot = Snapshot(table.workers())
        else:
            rows = [row for row in map(table.get, self._changed) if row is not None]
            message = Change(rows, [Removed(*entry) for entry in self._removed.items()])
        self._forget()
        self.due, self._everything = None, False
        return message

    def _added(self, due: float) -> None:
        self.due = due if self.due is None else min(self.due, due)
        self._everything = self._everything or len(self) > self._limit
        if self._everything:
            self._forget()

    def _forget(self) -> None:
        self._changed, self._removed = {}, {}


class Watcher:
    """One open watch: collects changes, and gives the lines to send one at a time. ``models`` gives
    where models stand, for watchers that want to know."""

    def __init__(
        self,
        table: Table,
        clock: Callable[[], float],
        pending: Pending,
        models: Callable[[], list[Standing]] | None = None,
    ) -> None:
        self._table = table
        self._models = models
        self._models_due = inf if models is None else -inf
        self._clock = clock
        self._pending = pending
        self._sent = clock()
        self._wake = asyncio.Event()
        self._closed = False

    def changed(self, address: str, *, load_only: bool = False) -> None:
        """A worker came or changed."""
        due = self._pending.due
        self._pending.changed(address, self._clock(), load_only=load_only)
        self._stir(due)

    def removed(self, address: str, reason: Reason) -> None:
        """A worker went."""
        due = self._pending.due
        self._pending.removed(address, reason, self._clock())
        self._stir(due)

    def models_changed(self) -> None:
        """Where models stand has changed."""
        if self._models is not None and self._models_due == inf:
            self._models_due = self._clock() + GATHER_LOAD
            self._wake.set()

    def close(self) -> None:
        """Ends the watch: ``next`` gives None from now on."""
        self._closed = True
        self._wake.set()

    async def next(self) -> bytes | None:
        """The next line, when there is one: first the whole table, then changes, pings in
        between; None when the watch is closed."""
        while not self._closed:
            now = self._clock()
            due = inf if self._pending.due is None else self._pending.due
            if due <= now:
                return self._line(self._pending.take(self._table))
            if self._models is not None and self._models_due <= now:
                self._models_due = inf
                return self._line(Models(self._models()))
            if self._sent + PING_AFTER <= now:
                return self._line(Ping())
            await self._sleep(min(due, self._models_due, self._sent + PING_AFTER) - now)
        return None

    def _line(self, message: Change | Snapshot | Models | Ping) -> bytes:
        self._sent = self._clock()
        return msgspec.json.encode(message) + b"\n"

    def _stir(self, due: float | None) -> None:
        if self._pending.due != due:
            self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds + LATE):
                await self._wake.wait()
        except TimeoutError:
            return
