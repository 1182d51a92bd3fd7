"""How the gateway processes of a machine hear from each other that keys have changed, so that a
change holds in all of them when whoever made it is told so.

Each process has a datagram socket in the folder that they share. Whoever has changed a key asks all
others to look, and waits until they say that they have.
"""

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from dev_opsgpt.storage.errors import StorageError

log = logging.getLogger(__name__)

# Seconds that the others have to look. One that is not run finds out by itself when it goes on.
PATIENCE = 2.0
LOOK, LOOKED = b"look", b"looked"
_MESSAGE = re.compile(rb"(look|looked) (\d+) (keys-\d+)")
_LONGEST = 100


class KeyNews:
    """One process's end. ``look`` reads the keys where they have changed; it may raise
    ``StorageError``. ``open`` and ``close`` are called in the event loop."""

    def __init__(self, folder: Path, look: Callable[[], Awaitable[None]]) -> None:
        self._look = look
        self._name = f"keys-{os.getpid()}"
        self._folder = folder
        self._descriptor = -1
        self._socket: socket.socket | None = None
        self._numbers = count(1)
        self._asked: dict[tuple[int, str], asyncio.Future[None]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Is to be heard from now on. Where that cannot be, it says so, and all is later."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # Of one that was killed and had the same number.
            (self._folder / self._name).unlink(missing_ok=True)
            sock.bind(self._path(self._name))
        except OSError as error:
            sock.close()
            log.warning("keys that others change are seen a little later: %s", error)
            return
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._readable, sock)

    async def tell(self) -> None:
        """Returns when every other process has looked, or ``PATIENCE`` is over."""
        number = next(self._numbers)
        asked = [(number, path.name) for path in self._folder.glob("keys-*")]
        for key in asked:
            if key[1] != self._name and self._send(LOOK, number, key[1]):
                self._asked[key] = asyncio.get_running_loop().create_future()
        waits = [self._asked[key] for key in asked if key in self._asked]
        try:
            if waits:
                _, late = await asyncio.wait(waits, timeout=PATIENCE)
                if late:
                    log.warning("%d other gateway processes have not read the keys", len(late))
        finally:
            for key in asked:
                self._asked.pop(key, None)

    async def close(self) -> None:
        """Is heard no more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            (self._folder / self._name).unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    def _readable(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            message = _MESSAGE.fullmatch(sock.recv(256))
            if message is not None:
                kind, number, name = message[1], int(message[2]), message[3].decode()
                if kind == LOOK:
                    task = asyncio.create_task(self._answer(number, name))
                    self._looking.add(task)
                    task.add_done_callback(self._looking.discard)
                elif (asked := self._asked.get((number, name))) is not None and not asked.done():
                    asked.set_result(None)

    async def _answer(self, number: int, name: str) -> None:
        # What cannot be read now is read by whoever looks from time to time.
        with contextlib.suppress(StorageError):
            await self._look()
            self._send(LOOKED, number, name)

    def _send(self, kind: bytes, number: int, name: str) -> bool:
        """Whether it has reached another process."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(b"%b %d %b" % (kind, number, self._name.encode()), self._path(name))
        except (ConnectionRefusedError, FileNotFoundError):
            # It was killed.
            (self._folder / name).unlink(missing_ok=True)
            return False
        except OSError as error:
            log.warning("a gateway process does not hear that keys have changed: %s", error)
            return False
        return True

    def _path(self, name: str) -> str:
        """A socket's path, which has to be short: below the open folder where its own is not."""
        path = str(self._folder / name)
        return path if len(path) < _LONGEST else f"/proc/self/fd/{self._descriptor}/{name}"
