"""Usage records on their way to the database: gathered in memory, written by a thread."""

import logging
import math
import threading
import time
from collections.abc import Callable

import msgspec

from dev_opsgpt.protocol.record import Record
from dev_opsgpt.storage.bulk import Unwritable, insert_many
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.storage.usage import PRUNED_AT_ONCE, prune

Clock = Callable[[], float]

log = logging.getLogger(__name__)

# Seconds between two writes: with the write itself, what a kill -9 can lose.
INTERVAL = 0.5
# Records of a transaction; other processes can write between two of them.
BATCH = 2048
# Records that are kept while the database cannot be written, about 700 bytes each.
MOST = 200_000
# Seconds between two tries while it cannot be: doubled up to the longest, shorter at the end.
LONGEST_PAUSE = 30.0
LAST_PAUSE = 0.2
# Seconds between two log lines about the same trouble.
LOG_EVERY = 60.0
# Seconds between two looks for records that are too old.
PRUNE_EVERY = 600.0
# Texts of a record that a client writes; longer ones are cut.
CLIENT_TEXTS = ("request_id", "path", "model")
LONGEST_TEXT = 512


class UsageWriter:
    """Writes records to a database that is up to date, in the order they came.

    ``add(record)`` takes one: it may be called from any thread and only appends to a list. While
    the database cannot be written the records wait; beyond ``most`` of them the oldest are
    dropped. ``written`` and ``dropped`` count records. Those older than ``keep_for`` seconds are
    deleted, None keeps all. ``clock`` is monotonic, ``wall_clock`` gives Unix seconds.

    Nothing runs before ``start``, which belongs into the process that adds: a thread does not
    survive a fork.
    """

    def __init__(
        self,
        database: Database,
        *,
        interval: float = INTERVAL,
        most: int = MOST,
        keep_for: float | None = None,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self._database = database
        self._interval = interval
        self._most = most
        self._keep_for = keep_for
        self._clock = clock
        self._wall_clock = wall_clock
        # A record leaves the list when it is written, and only by the writing thread's hand.
        self._records: list[Record] = []
        self.add: Callable[[Record], None] = self._records.append
        self.written = 0
        self.dropped = 0
        self._failures = 0
        self._logged = -math.inf
        self._pruning = -math.inf
        self._ending = threading.Event()
        self._deadline = 0.0
        self._thread: threading.Thread | None = None

    @property
    def pending(self) -> int:
        """Records that are not in the database yet."""
        return len(self._records)

    def start(self) -> None:
        """Starts the thread that writes."""
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 10.0) -> int:
        """Writes all that was added before, trying for ``timeout`` seconds. Blocks. Gives the
        number of records that are lost because the database would not take them."""
        if self._thread is not None:
            self._deadline = self._clock() + timeout
            self._ending.set()
            self._thread.join(timeout)
            self._thread = None
        if lost := self.pending:
            log.error("%d usage records are lost: the database could not be written", lost)
        return lost

    def _run(self) -> None:
        while not self._ending.wait(self._pause()):
            self._flush()
        while not self._flush() and self._clock() < self._deadline:
            time.sleep(LAST_PAUSE)

    def _pause(self) -> float:
        # 2 ** 10 is beyond any pause already; an exponent that grows for days is not.
        return float(min(self._interval * 2 ** min(self._failures, 10), LONGEST_PAUSE))

    def _flush(self) -> bool:
        """Writes what has come so far; whether it could."""
        try:
            self._write(len(self._records))
            self._prune()
        except StorageError as error:
            self._failed(str(error))
        except Exception as error:
            # Whatever it is: this thread is the only one that writes, and the records are kept.
            self._failed(type(error).__name__, exc_info=True)
        else:
            if self._failures:
                log.info("usage records are written again")
            self._failures = 0
            return True
        return False

    def _write(self, count: int) -> None:
        """Writes the oldest ``count`` records. One that the database can never take is searched
        for by halves, and dropped."""
        size = BATCH
        while count > 0:
            batch = self._records[: min(size, count)]
            try:
                insert_many(self._database, [_bounded(record) for record in batch])
                self.written += len(batch)
            except Unwritable as error:
                if len(batch) > 1:
                    size = len(batch) // 2
                    continue
                self.dropped += 1
                log.error("a usage record cannot be written and is dropped: %s", error)
            del self._records[: len(batch)]
            count -= len(batch)
            size = BATCH

    def _prune(self) -> None:
        """Deletes some old records; those that are left are for the next time."""
        now = self._clock()
        if self._keep_for is None or now < self._pruning or self._ending.is_set():
            return
        if prune(self._database, self._wall_clock() - self._keep_for) < PRUNED_AT_ONCE:
            self._pruning = now + PRUNE_EVERY

    def _failed(self, reason: str, *, exc_info: bool = False) -> None:
        self._failures += 1
        excess = max(len(self._records) - self._most, 0)
        del self._records[:excess]
        self.dropped += excess
        now = self._clock()
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            log.error(
                "usage records cannot be written: %s (%d wait, %d were dropped so far)",
                reason,
                len(self._records),
                self.dropped,
                exc_info=exc_info,
            )


def _bounded(record: Record) -> Record:
    if (
        len(record.model) <= LONGEST_TEXT
        and len(record.path) <= LONGEST_TEXT
        and len(record.request_id) <= LONGEST_TEXT
    ):
        return record
    cut = {name: getattr(record, name)[:LONGEST_TEXT] for name in CLIENT_TEXTS}
    return msgspec.structs.replace(record, **cut)
