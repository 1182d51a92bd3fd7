"""Writes log lines in a thread of its own, so that a full pipe or a slow disk holds nobody up."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

# Lines that wait for a stream that takes nothing; beyond them the newest are dropped and counted.
MOST_WAITING = 10_000
# Seconds that lines which are in no hurry are gathered, to be written at once.
GATHER = 0.1
CLOSE_TIMEOUT = 5.0

Render = Callable[[Any], str]


class LogWriter:
    """Writes lines to ``stream`` in the order in which they came. Its methods may be called from
    any thread, and none but ``close`` waits."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: deque[str | tuple[Render, Any]] = deque()
        self._lost = 0
        self._some = threading.Event()
        self._hurry = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Takes a line, without its end, to be written now."""
        if self._take(line):
            self._hurry.set()
            self._some.set()

    def write_later(self, render: Render, value: Any) -> None:
        """Takes a line to be written soon: ``render(value)``, called in the writer's thread."""
        if self._take((render, value)) and not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Writes what waits, for a few seconds at most, and ends the thread."""
        self._closed = True
        self._hurry.set()
        self._some.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_TIMEOUT)

    def _take(self, item: str | tuple[Render, Any]) -> bool:
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            return False
        self._waiting.append(item)
        return True

    def _run(self) -> None:
        while not self._closed or self._waiting:
            self._some.wait()
            self._hurry.wait(GATHER)
            self._some.clear()
            self._hurry.clear()
            if self._closed:
                self._some.set()
            self._drain()

    def _drain(self) -> None:
        lines = []
        while self._waiting:
            item = self._waiting.popleft()
            lines.append(item if isinstance(item, str) else _rendered(*item))
        if self._lost:
            lost, self._lost = self._lost, 0
            lines.append(f"{lost} log lines were lost: nobody took them in time")
        if not lines:
            return
        try:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody is left to tell.
            return


def _rendered(render: Render, value: Any) -> str:
    try:
        return render(value)
    except Exception as error:
        return f"a log line could not be made: {type(error).__name__}"
