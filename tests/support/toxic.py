"""A TCP proxy that does harm on command: what lies between a gateway and a worker on a bad day."""

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True, eq=False)
class _Mode:
    """What happens to connections. ``delay`` seconds before each piece of an answer, of ``piece``
    bytes at most; ``hole``: nothing gets through; ``cut``: an end after so many bytes of answers;
    ``reset``: that end, or else the next request, is a reset connection."""

    delay: float = 0.0
    piece: int = 1 << 16
    hole: bool = False
    cut: int | None = None
    reset: bool = False


class Toxic:
    """Listens on a loopback port and passes everything on to another one, both ways, until it is
    told otherwise; a command holds for open connections and for new ones, until the next command.

    It runs in a thread with an event loop of its own, so that a test that blocks does not stall
    it. Commands may be given from anywhere, and have taken effect when they return. When one side
    ends a connection, or resets it, so does the proxy to the other side.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._mode = _Mode()
        self._links: set[_Link] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._changed: asyncio.Event
        self._stopping: asyncio.Event
        self.port = 0
        self.accepted = 0
        """Connections so far."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the proxy did not start"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """Where to reach what is behind it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def heal(self) -> None:
        """Passes everything on again, what a black hole held back too."""
        self._apply(_Mode())

    def slow(self, delay: float, piece: int = 1 << 16) -> None:
        """Passes answers on in pieces of so many bytes at most, ``delay`` seconds before each."""
        self._apply(_Mode(delay=delay, piece=piece))

    def reset(self) -> None:
        """Resets the open connections now, and each new one when it brings a request."""
        self._apply(_Mode(reset=True), abort=True)

    def black_hole(self) -> None:
        """Takes connections and answers nothing; open ones fall silent where they are."""
        self._apply(_Mode(hole=True))

    def cut_after(self, size: int, *, reset: bool = False) -> None:
        """Ends each connection after ``size`` more bytes of answers, or resets it there."""
        self._apply(_Mode(cut=size, reset=reset))

    def _apply(self, mode: _Mode, *, abort: bool = False) -> None:
        done = threading.Event()

        def apply() -> None:
            self._mode = mode
            self._changed.set()
            self._changed = asyncio.Event()
            for link in list(self._links) if abort else ():
                link.abort()
            done.set()

        self._loop.call_soon_threadsafe(apply)
        done.wait()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed, self._stopping = asyncio.Event(), asyncio.Event()
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._stopping.wait()
            for link in list(self._links):
                link.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self, (reader, writer))
        self._links.add(link)
        try:
            await link.run(self._target)
        finally:
            self._links.discard(link)

    @property
    def mode(self) -> _Mode:
        """What it was told last."""
        return self._mode

    async def changed(self, within: float | None = None) -> None:
        """Waits for the next command, so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._changed.wait()


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Toxic, client: Streams) -> None:
        self._proxy = proxy
        self._client = client
        self._server: Streams | None = None
        self._task = asyncio.current_task()
        # The answer's bytes since the last command.
        self._counted = proxy.mode
        self._passed = 0

    async def run(self, target: tuple[str, int]) -> None:
        """Passes on until one side, or a command, ends it."""
        try:
            self._server = await asyncio.open_connection(*target)
            ways = [asyncio.create_task(self._requests()), asyncio.create_task(self._answers())]
            try:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in done:
                    way.result()
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            self._end(reset=True)
        except asyncio.CancelledError:
            pass  # aborted, or the whole proxy ends
        finally:
            self._end()

    def abort(self) -> None:
        """Resets both sides."""
        self._end(reset=True)
        if self._task is not None:
            self._task.cancel()

    def _end(self, *, reset: bool = False) -> None:
        for streams in (self._client, self._server):
            if streams is None:
                continue
            _, writer = streams
            if reset and not writer.is_closing():
                found: socket.socket = writer.get_extra_info("socket")
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                writer.transport.abort()
            else:
                writer.close()

    async def _requests(self) -> None:
        assert self._server is not None
        reader, (_, writer) = self._client[0], self._server
        while data := await reader.read(1 << 16):
            await self._hole()
            mode = self._proxy.mode
            if mode.reset and mode.cut is None:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()

    async def _answers(self) -> None:
        assert self._server is not None
        (reader, _), writer = self._server, self._client[1]
        data = b""
        while data := data or await reader.read(1 << 16):
            await self._hole()
            if self._proxy.mode.delay:
                await self._proxy.changed(within=self._proxy.mode.delay)
                await self._hole()
            size = self._proxy.mode.piece
            piece, ends = self._cut(data[:size])
            data = data[size:]
            writer.write(piece)
            await writer.drain()
            if ends:
                if self._proxy.mode.reset:
                    raise ConnectionResetError
                return

    async def _hole(self) -> None:
        while self._proxy.mode.hole:
            await self._proxy.changed()

    def _cut(self, data: bytes) -> tuple[bytes, bool]:
        """What may pass of an answer's piece, and whether that was all."""
        mode = self._proxy.mode
        if mode is not self._counted:
            self._counted, self._passed = mode, 0
        if mode.cut is None:
            return data, False
        data = data[: mode.cut - self._passed]
        self._passed += len(data)
        return data, self._passed >= mode.cut
