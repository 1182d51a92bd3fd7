"""The counters of all keys in one file that every gateway process maps into its memory.

Locks are byte ranges of a file beside it, which the kernel takes from whoever dies: byte 0 for the
file's making and growing, one byte for the life of each process, one for each key's row.
"""

import fcntl
import hashlib
import logging
import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path

from dev_opsgpt.gateway.limits.rows import ROW_BYTES, SLOTS, MemoryTable, Row

log = logging.getLogger(__name__)

# Named for its layout: a release with another one takes another file.
FILE, LOCKS = "limits-1.bin", "limits-1.lock"
HEADER = 65536
SEGMENT_ROWS = 1024
SEGMENT = SEGMENT_ROWS * ROW_BYTES

# Cells of the header.
BOOT, HIGHEST, EPOCHS = 0, 1, 16

MAKING, LIVES, ROWS = 0, 1, 1024
# A row's lock is held for microseconds, unless its holder is not run: on a machine that is too busy
# for parts of a second, and where somebody stopped it for good. Nobody waits longer than this: to
# count without the lock for a while, and maybe miss a few, is better than to answer nobody.
PATIENCE = 1.0
IMPATIENT_FOR = 10.0
PAUSE = 0.00005


class SharedTable:
    """Rows in the folder's file. One object a process and folder; ``alone`` says that no other
    process is about, so that nothing need be locked; it may be changed. Raises ``OSError``."""

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.alone = alone
        self._impatient_until: dict[int, float] = {}
        self._rows: dict[int, Row] = {}
        self._segments: dict[int, memoryview[int]] = {}
        self._spare: MemoryTable | None = None
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._locks = os.open(folder / LOCKS, flags, 0o600)
        self._file = os.open(folder / FILE, flags, 0o600)
        try:
            self._header = self._open()
            self.epochs = self._header[EPOCHS : EPOCHS + SLOTS]
            self.slot = self._take_slot()
        except OSError:
            os.close(self._file)
            os.close(self._locks)
            raise
        self.epoch = self.epochs[self.slot] = _after(self.epochs[self.slot])

    @property
    def slots(self) -> int:
        """How many slots may be in use."""
        return self._header[HIGHEST]

    def row(self, number: int) -> Row:
        """A key's row."""
        found = self._rows.get(number)
        if found is None:
            try:
                found = self._map(number)
            except OSError as error:
                # The disk is full, say. To write to a hole in a file there would be the end of
                # this process, so this one counts by itself.
                log.warning("counting a key's limits in this process only: %s", error.strerror)
                self._spare = self._spare or MemoryTable()
                found = self._spare.row(number)
            self._rows[number] = found
        return found

    def acquire(self, number: int) -> None:
        """Keeps the other processes from a row."""
        if self.alone:
            return
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, ROWS + number)
        except OSError:
            self._wait(number)

    def release(self, number: int) -> None:
        """Lets them to it."""
        if not self.alone:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, ROWS + number)

    def bury(self, slots: Iterable[int]) -> None:
        """Forgets what the processes of these slots had in flight, where they are no more."""
        for slot in slots:
            if slot != self.slot and self._lock(LIVES + slot):
                self.epochs[slot] = _after(self.epochs[slot])
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, LIVES + slot)

    def close(self) -> None:
        """Gives the slot back."""
        self.epochs[self.slot] = _after(self.epoch)
        self._rows.clear()
        os.close(self._file)
        os.close(self._locks)

    def _open(self) -> "memoryview[int]":
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, MAKING)
        try:
            boot = _boot()
            if os.fstat(self._file).st_size >= HEADER:
                header = memoryview(mmap.mmap(self._file, HEADER)).cast("Q")
                if header[BOOT] == boot:
                    return header
            # New, or of the time before this machine was started: then nobody has it open, and
            # its times are of another clock.
            os.ftruncate(self._file, 0)
            os.posix_fallocate(self._file, 0, HEADER)
            header = memoryview(mmap.mmap(self._file, HEADER)).cast("Q")
            header[BOOT] = boot
            return header
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, MAKING)

    def _take_slot(self) -> int:
        for slot in range(SLOTS):
            if self._lock(LIVES + slot):
                if slot >= self._header[HIGHEST]:
                    self._header[HIGHEST] = slot + 1
                return slot
        raise OSError(f"more than {SLOTS} processes count in one folder")

    def _map(self, number: int) -> Row:
        segment, place = divmod(number, SEGMENT_ROWS)
        begin = HEADER + segment * SEGMENT
        os.posix_fallocate(self._file, begin + place * ROW_BYTES, ROW_BYTES)
        if segment not in self._segments:
            fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, MAKING)
            try:
                if os.fstat(self._file).st_size < begin + SEGMENT:
                    os.ftruncate(self._file, begin + SEGMENT)
            finally:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, MAKING)
            mapped = mmap.mmap(self._file, SEGMENT, offset=begin)
            self._segments[segment] = memoryview(mapped)
        memory = self._segments[segment]
        return Row(memory[place * ROW_BYTES : (place + 1) * ROW_BYTES])

    def _lock(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    def _wait(self, number: int) -> None:
        began = time.monotonic()
        if began < self._impatient_until.get(number, 0.0):
            return
        while not self._lock(ROWS + number):
            if time.monotonic() - began > PATIENCE:
                self._impatient_until[number] = time.monotonic() + IMPATIENT_FOR
                log.warning("another gateway process holds a lock and is not run; going on")
                return
            time.sleep(PAUSE)


def _after(epoch: int) -> int:
    """The next epoch: 32 bits, and not 0, which is that of untouched cells."""
    return (epoch + 1) % (1 << 32) or 1


def _boot() -> int:
    """A number for the time since this machine was started."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        # No Linux. A minute of the clocks' difference, which is when the machine was started.
        text = str(round((time.time() - time.monotonic()) / 60))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little") | 1
