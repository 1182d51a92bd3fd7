"""Child processes of a run: started, waited for, weighed, stopped by their id."""

import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

STOP_GRACE = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class StartFailed(Exception):
    """A process did not come up; the message holds the end of its log."""


class Process:
    """One child whose output goes to ``log``."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._log = log
        self._command = " ".join(argv)
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
                cwd=cwd,
            )
        self.pid = self._popen.pid

    def wait_for(
        self,
        url: str,
        *,
        contains: str = "",
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Returns when a GET of ``url`` gives 200 and a body with ``contains`` in it. Raises
        ``StartFailed`` after ``timeout`` seconds, and when the process ends."""
        deadline = time.monotonic() + timeout
        while not answers(url, contains, headers or {}):
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise StartFailed(f"{self._command} does not answer:\n{self._tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not end by it and what it leaves behind."""
        family = _tree([self.pid])
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for pid in family.keys() & _pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


def free_port() -> int:
    """A loopback port that nobody uses now, and that the system gives to no outgoing connection
    before somebody listens there."""
    while True:
        port = random.randrange(10_000, 15_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def answers(url: str, contains: str, headers: Mapping[str, str]) -> bool:
    """Whether a GET gives 200 and a body with ``contains`` in it."""
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return contains.encode() in reply.read()
    except (urllib.error.URLError, OSError):
        return False


def listeners(port: int) -> int:
    """How many sockets listen on a port of IPv4 now: several, where processes share it."""
    return count_listeners(Path("/proc/net/tcp").read_text(), port)


def count_listeners(table: str, port: int) -> int:
    """The same of the text of /proc/net/tcp, whose numbers are hexadecimal; 0A is to listen."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return sum(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def cpu_seconds(roots: Sequence[int]) -> float:
    """User and system time that these processes and their descendants have used so far, those
    that have ended included (as far as their parents have waited for them)."""
    return sum(spent for _, spent in _tree(roots).values()) / _TICKS


def resident_bytes(roots: Sequence[int]) -> int:
    """Memory that these processes and their descendants hold now."""
    return sum(_resident_pages(pid) for pid in _tree(roots)) * _PAGE


def parse_stat(text: str) -> tuple[int, int]:
    """Of a line of /proc/<pid>/stat: the parent's id; and user plus system time in ticks, its own
    and that of the children it has waited for."""
    # The second field, the name in parentheses, may hold anything, spaces and parentheses too.
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), sum(int(field) for field in fields[11:15])


def _tree(roots: Sequence[int]) -> dict[int, tuple[int, int]]:
    """What ``parse_stat`` says of each that lives."""
    stats = {pid: stat for pid in _pids() if (stat := _stat(pid)) is not None}
    tree = set(roots)
    grown = True
    while grown:
        found = {pid for pid, (parent, _) in stats.items() if parent in tree} - tree
        tree |= found
        grown = bool(found)
    return {pid: stats[pid] for pid in tree if pid in stats}


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _stat(pid: int) -> tuple[int, int] | None:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
