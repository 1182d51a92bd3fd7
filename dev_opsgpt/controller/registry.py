"""The live registry: the table with a clock, told to whoever watches it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from time import monotonic

import msgspec

from dev_opsgpt.controller.watch import Pending, Watcher
from dev_opsgpt.protocol.fastchat import Load, WorkerStatus
from dev_opsgpt.routing.cards import Standing
from dev_opsgpt.routing.dispatch import Dispatcher
from dev_opsgpt.routing.table import Table, Worker, split_queue
from dev_opsgpt.routing.updates import Reason

logger = logging.getLogger(__name__)

# A worker that sends no beats of ours beats as FastChat's do, every 45 s.
FASTCHAT_LIFETIME = 90.0
# What a FastChat worker runs at once unless it is told otherwise; it does not say.
FASTCHAT_LIMIT = 5
# Of our own workers' beats three may be lost; half an interval is for the way.
MISSED_BEATS = 3.5

Heard = Callable[[Worker, Load | None, float], None]
"""Takes a sign of life of a worker, with its load if that was a beat, and when it came."""


class Registry:
    """Every change of the table goes through here, so that every watcher hears of it.

    ``clock`` gives monotonic seconds and decides on expiry. ``table`` is for reading only.
    ``heard`` and ``lost`` are told of workers that come, beat and go.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock: Callable[[], float],
        heard: Heard = lambda row, load, now: None,
        lost: Callable[[str], None] = lambda address: None,
    ) -> None:
        self.table = Table()
        self._heard = heard
        self._lost = lost
        self._dispatcher = dispatcher
        self._clock = clock
        self._watchers: set[Watcher] = set()
        self._news = asyncio.Event()
        self._closed = False

    def use(self, dispatcher: Dispatcher) -> None:
        """Chooses by another policy from now on."""
        self._dispatcher = dispatcher

    def register(self, row: Worker, *, lifetime: float | None) -> None:
        """Adds or replaces a worker, which expires after ``lifetime`` seconds without a beat."""
        before = self.table.get(row.address)
        self.table.register(row, now=self._clock(), lifetime=lifetime)
        if before is None or before.models != row.models or before.kind != row.kind:
            logger.info("worker registered: %s (%s) serves %r", row.address, row.kind, row.models)
        self._heard(row, None, self._clock())
        self._changed(row.address)

    def beat(self, address: str, queue_length: int, load: Load | None) -> bool:
        """Takes a beat; false when the worker is not known and has to register."""
        row = self.table.get(address)
        if row is None:
            return False
        if load is None:
            load = Load(*split_queue(queue_length, row.limit), row.limit)
        self.table.beat(
            address,
            now=self._clock(),
            running=load.running,
            waiting=load.waiting,
            limit=load.limit,
        )
        self._heard(row, load, self._clock())
        for watcher in self._watchers:
            watcher.changed(address, load_only=True)
        return True

    def refresh(self, address: str, status: WorkerStatus) -> None:
        """Takes a known worker's own word on its models and load."""
        row = self.table.get(address)
        if row is None:
            return
        running, waiting = split_queue(status.queue_length, row.limit)
        row = msgspec.structs.replace(
            row,
            models=tuple(dict.fromkeys(status.model_names)),
            speed=status.speed,
            queue_length=status.queue_length,
            running=running,
            waiting=waiting,
        )
        self.table.update(row, now=self._clock())
        self._changed(address)

    def drain(self, address: str, drain: bool = True) -> bool:
        """Takes a worker out of service or back into it; false when it is not known."""
        if not self.table.drain(address, drain):
            return False
        logger.info("worker %s: %s", "drains" if drain else "serves again", address)
        self._changed(address)
        return True

    def remove(self, address: str, reason: Reason) -> bool:
        """Forgets a worker; false when it is not known."""
        if self.table.remove(address) is None:
            return False
        self._removed(address, reason)
        return True

    def sweep(self) -> None:
        """Drops the workers whose beats have failed to come."""
        for row in self.table.expire(self._clock()):
            self._removed(row.address, "expired")

    def forgive(self, seconds: float) -> None:
        """Holds a time in which this process stood still against no worker."""
        self.table.forgive(seconds)

    def dispatch(self, model: str) -> Worker | None:
        """Chooses the worker for one request of FastChat's kind, and counts the request.

        Attached servers are passed over: they do not speak FastChat's protocol.
        """
        rows = [row for row in self.table.replicas(model) if row.kind != "openai"]
        chosen = self._dispatcher.choose(model, rows)
        if chosen is not None:
            self.table.dispatched(chosen.address)
        return chosen

    async def watch(
        self, models: Callable[[], list[Standing]] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The lines of one watch, until the caller or the registry is closed; with those of
        ``models`` for who wants them."""
        watcher = Watcher(self.table, monotonic, Pending(), models)
        self._watchers.add(watcher)
        if self._closed:
            watcher.close()
        try:
            while (line := await watcher.next()) is not None:
                yield line
        finally:
            self._watchers.discard(watcher)

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Waits until a condition on the table holds; false when it did not within the time."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def models_changed(self) -> None:
        """Where models stand has changed."""
        for watcher in self._watchers:
            watcher.models_changed()

    def close(self) -> None:
        """Ends all watches, now and to come, so that a server with open ones can stop."""
        self._closed = True
        for watcher in self._watchers:
            watcher.close()

    def _changed(self, address: str) -> None:
        for watcher in self._watchers:
            watcher.changed(address)
        self._tell()

    def _removed(self, address: str, reason: Reason) -> None:
        self._dispatcher.gone(address)
        self._lost(address)
        logger.info("worker removed: %s (%s)", address, reason)
        for watcher in self._watchers:
            watcher.removed(address, reason)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
