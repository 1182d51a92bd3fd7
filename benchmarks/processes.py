"""Child processes of a run: started, waited for, weighed, stopped by their id."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_GRACE = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")


class StartFailed(Exception):
    """A process did not come up; the message holds the end of its log."""


class Process:
    """One child whose output goes to ``log``."""

    def __init__(
        self, argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
            )
        self.pid = self._popen.pid

    def wait_for(self, url: str, *, contains: str = "", timeout: float = 60.0) -> None:
        """Returns when a GET of ``url`` gives 200 and a body with ``contains`` in it. Raises
        ``StartFailed`` after ``timeout`` seconds, and when the process ends."""
        deadline = time.monotonic() + timeout
        while not _answers(url, contains):
            if self._popen.poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise StartFailed(f"{' '.join(self._popen.args)} does not answer:\n{tail}")  # type: ignore[arg-type]
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not end by it."""
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_seconds(roots: Sequence[int]) -> float:
    """User and system time that these processes and their descendants have used so far."""
    stats = {pid: stat for pid in _pids() if (stat := _stat(pid)) is not None}
    tree = set(roots)
    grown = True
    while grown:
        found = {pid for pid, (parent, _) in stats.items() if parent in tree} - tree
        tree |= found
        grown = bool(found)
    return sum(stats[pid][1] for pid in tree if pid in stats) / _TICKS


def parse_stat(text: str) -> tuple[int, int]:
    """Of a line of /proc/<pid>/stat: the parent's id, and user plus system time in ticks."""
    # The second field, the name in parentheses, may hold anything, spaces and parentheses too.
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[11]) + int(fields[12])


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> tuple[int, int] | None:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def _answers(url: str, contains: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return contains.encode() in reply.read()
    except (urllib.error.URLError, OSError):
        return False
