"""Answers a scrape for all of the gateway's processes, whichever of them it reached.

Each process keeps its figures in a file where the others find them. What a scrape shows is in a
file before it is shown, and a restarted process begins with what is in its file: so no counter
that anybody has seen ever goes back, however a process ends.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from itertools import count

from dev_opsgpt.gateway.exposition import expose, process_figures
from dev_opsgpt.gateway.metrics import Metrics
from dev_opsgpt.gateway.snapshot import Snapshot, lasting, merge
from dev_opsgpt.gateway.snapshot_files import SnapshotFiles

log = logging.getLogger(__name__)

INTERVAL = 1.0
# An idle process writes this often all the same. One that has not written for STALE seconds is
# gone: its counts last, what it saw does not.
HEARTBEAT = 5.0
STALE = 15.0


class Exporter:
    """The figures of ``metrics`` and of the processes beside this one.

    ``files`` is where they are exchanged, None for a gateway of one process; ``index`` tells this
    process from the others. ``clock`` gives Unix time in seconds.
    """

    def __init__(
        self,
        metrics: Metrics,
        files: SnapshotFiles | None = None,
        *,
        index: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._files = files
        self._number = str(index)
        self._clock = clock
        # Snapshots are numbered: an older one never replaces a newer one in the file.
        self._numbers = count(1)
        self._writing = threading.Lock()
        self._written = Snapshot()
        self._written_number = 0
        self._failed = False

    def take_over(self) -> None:
        """Goes on with what the process that had this place before has counted. Once, before the
        first request; it reads a small file."""
        before = self._files.own() if self._files is not None else None
        if before is not None:
            self._metrics.inherit(before)

    async def run(self) -> None:
        """Writes this process's figures every second while they change; ends when cancelled."""
        while self._files is not None:
            try:
                await self._save(only_changes=True)
            except Exception:
                log.exception("the gateway's figures could not be read")
            await asyncio.sleep(INTERVAL)

    async def close(self) -> None:
        """Writes them a last time, when the last request is over."""
        if self._files is not None:
            await self._save()

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """The figures of all processes as text, and the text's type; see ``expose``."""
        own = await self._save()
        return await asyncio.to_thread(self._page, own, accept)

    def _page(self, own: Snapshot, accept: str) -> tuple[bytes, str]:
        others = self._files.others() if self._files is not None else []
        now = self._clock()
        alive = (o if abs(now - o.at) <= STALE else lasting(o) for o in others)
        return expose(merge([own, *alive]), accept)

    async def _save(self, *, only_changes: bool = False) -> Snapshot:
        snapshot = self._metrics.snapshot(self._clock())
        if not only_changes or self._changed(snapshot):
            await asyncio.to_thread(self._write, next(self._numbers), snapshot)
        return snapshot

    def _changed(self, snapshot: Snapshot) -> bool:
        last = self._written
        return (
            snapshot.at - last.at >= HEARTBEAT
            or snapshot.counters != last.counters
            or snapshot.gauges != last.gauges
        )

    def _write(self, number: int, snapshot: Snapshot) -> None:
        snapshot.process = {self._number: process_figures()}
        if self._files is None:
            return
        with self._writing:
            if number < self._written_number:
                return
            try:
                self._files.write(snapshot)
            except OSError as error:
                if not self._failed:
                    log.warning("the gateway's figures cannot be shared: %s", error)
                self._failed = True
            else:
                self._failed = False
                self._written, self._written_number = snapshot, number
