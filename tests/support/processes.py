"""Processes as /proc shows them: who lives, whose child it is, what it holds."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process; ``born`` (clock ticks since boot) tells it from a later one with its id."""

    pid: int
    born: int

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process with this id, if it lives; a zombie does not."""
        fields = _stat(pid)
        return None if fields is None or fields[0] == "Z" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    @property
    def argv(self) -> list[str]:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        return []

    @property
    def rss(self) -> int:
        """Resident memory in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def send(self, sign: signal.Signals) -> None:
        """Sends a signal to this very process."""
        if self.alive:
            os.kill(self.pid, sign)

    def children(self) -> list["Process"]:
        """Its living children."""
        found = []
        for entry in os.listdir("/proc"):
            fields = _stat(int(entry)) if entry.isdigit() else None
            if fields is not None and int(fields[1]) == self.pid:
                child = Process.of(int(entry))
                found += [child] if child is not None else []
        return found


def gone(processes: Iterable[Process], seconds: float) -> bool:
    """Waits until all of them have ended; false when they have not within the time."""
    waiting = list(processes)
    deadline = time.monotonic() + seconds
    while waiting := [process for process in waiting if process.alive]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the name, which may itself hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
