"""A child's output as files of bounded size, and its last lines for when it fails."""

from collections import deque
from pathlib import Path
from urllib.parse import quote

MAX_BYTES = 10 << 20
KEPT_FILES = 3
TAIL_LINES = 20
MAX_LINE = 4096


def log_name(process: str) -> str:
    """A file name for a process: its own, with what a file name cannot hold escaped."""
    return f"{quote(process.replace(' ', '-'), safe='-().+@')[:200]}.log"


class LogFile:
    """Appends to one file; a full one is set aside as ``.1``, ``.2`` ... and the oldest dropped.

    A disk that takes nothing costs the log, never the service: ``tail`` still has the last lines.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT_FILES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = b""

    @property
    def tail(self) -> list[str]:
        """The last lines since ``forget``, oldest first."""
        rest = [_text(self._partial)] if self._partial else []
        return [*self._tail, *rest]

    def forget(self) -> None:
        """Empties the tail: a new life begins."""
        self._tail.clear()
        self._partial = b""

    def write(self, data: bytes) -> None:
        """Appends output as it came."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-MAX_LINE:]
        self._tail.extend(_text(line) for line in lines if line.strip())
        try:
            self._append(data)
        except OSError:
            return

    def _append(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(data)
            full = file.tell() >= self._max_bytes
        if full:
            self._rotate()

    def _rotate(self) -> None:
        for number in range(self._kept - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _text(line: bytes) -> str:
    return line[-MAX_LINE:].decode(errors="replace").rstrip()
