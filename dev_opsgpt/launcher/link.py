"""What ties a child to its launcher: one socket pair, for news one way, for the configuration and
for life the other.

The child writes a line of JSON for what the launcher must know. The launcher writes what the child
runs by, at its start and when it changes. That the launcher's end closes is a message as well, and
the kernel delivers it even when the launcher is killed.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Self

import msgspec

from dev_opsgpt.launcher.handed import Handed, receive

LINK = "OPSGPT_LINK"
"""The environment variable that holds the file descriptor of a child's end."""
LOG_LEVEL = "OPSGPT_CHILD_LOG_LEVEL"
"""The environment variable by which the launcher sets a child's log level."""
_PR_SET_PDEATHSIG = 1
ORPHAN_GRACE = 5.0
"""Seconds that a child whose launcher is gone has to drain."""


class Exit(IntEnum):
    """What a child's exit code tells. 0 is a stop that was asked for; the others have the
    meaning that sysexits.h gives them."""

    STOPPED = 0
    PORT_IN_USE = 69
    ENGINE = 70
    CONFIG = 78


class Ready(msgspec.Struct, tag="ready"):
    """The part of the child that listens on ``port`` serves, at an address."""

    port: int
    address: str


class Progress(msgspec.Struct, tag="progress"):
    """What the part that listens on ``port`` is at while it starts, and how much of that is done,
    between 0 and 1 where it can be told."""

    port: int
    doing: str
    fraction: float | None = None


class Failed(msgspec.Struct, tag="failed"):
    """A part cannot be started, told in one line for a person; port 0 means every part. ``code``
    is an ``Exit``."""

    message: str
    code: int
    port: int = 0


class Stopped(msgspec.Struct, tag="stopped"):
    """A part has left because it was released; the rest of the child goes on."""

    port: int


class Applied(msgspec.Struct, tag="applied"):
    """The part of the child that listens on ``port`` runs by the configuration of that number, or
    goes on as before for the reason that ``message`` gives in one line."""

    port: int
    number: int
    message: str = ""


News = Ready | Progress | Failed | Stopped | Applied


_decoder: msgspec.json.Decoder[News] = msgspec.json.Decoder(News)


def decode(line: bytes) -> News:
    """One line of a child. Raises ``msgspec.MsgspecError``."""
    return _decoder.decode(line)


class LauncherGone(Exception):
    """The launcher has ended before it said what to do."""


class Link:
    """The child's end. Without a launcher (a child started by hand) it tells nobody."""

    def __init__(self, end: socket.socket | None) -> None:
        self._end = end

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """The end that the launcher handed down, kept from this process's own children."""
        if LINK not in environ:
            return cls(None)
        end = socket.socket(fileno=int(environ[LINK]))
        end.set_inheritable(False)
        return cls(end)

    def tell(self, news: News) -> None:
        """Sends news; a launcher that is gone does not hear it."""
        if self._end is not None:
            try:
                self._end.sendall(msgspec.json.encode(news) + b"\n")
            except OSError:
                return

    def receive(self) -> Handed | None:
        """What this child is to run by, the first thing that a launcher sends. None without a
        launcher. Raises ``LauncherGone``."""
        if self._end is None:
            return None
        handed = receive(self._end)
        if handed is None:
            raise LauncherGone
        return handed

    def watch(
        self, lost: Callable[[], object], changed: Callable[[Handed], object] | None = None
    ) -> None:
        """Calls ``changed`` from another thread with each further configuration, and ``lost`` when
        the launcher is gone; ends this process and all its children when that has not led to its
        end within ``ORPHAN_GRACE`` seconds."""
        if self._end is not None:
            _wake_on_death()
            threading.Thread(
                target=_watch, args=(self._end, lost, changed or (lambda _: None)), daemon=True
            ).start()


def _wake_on_death() -> None:
    """Has Linux continue this process when its launcher dies: one that is stopped (SIGSTOP) could
    not see that the link is closed. To one that runs the signal is nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def _watch(
    end: socket.socket, lost: Callable[[], object], changed: Callable[[Handed], object]
) -> None:
    try:
        while (handed := receive(end)) is not None:
            changed(handed)
    finally:
        _end(lost)


def _end(lost: Callable[[], object]) -> None:
    try:
        lost()
    finally:
        time.sleep(ORPHAN_GRACE)
        # Only a group of our own: a child started by hand shares its shell's.
        if os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)
