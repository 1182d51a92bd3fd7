"""The head of an answer, held back until its first bytes are there."""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class HeldHead:
    """Stands in for the transport of one request until the head of its answer is written: it goes
    out together with what the same step of the event loop writes next. That is a system call less
    for every answer, and a packet less for its client."""

    __slots__ = ("_cycle", "_held", "_loop", "_transport")

    def __init__(self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle = cycle
        self._loop = loop
        self._transport = cycle.transport
        self._held = b""
        cycle.transport = cast(asyncio.Transport, self)

    def write(self, data: bytes) -> None:
        """Holds the head; what comes next goes out with it, and all that follows by itself."""
        if not self._held:
            self._held = data
            self._loop.call_soon(self._flush)
            return
        held, self._held = self._held, b""
        self._cycle.transport = self._transport
        self._transport.writelines((held, data))

    def close(self) -> None:
        """Sends what is held, and closes."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection ends."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._cycle.transport = self._transport
            self._transport.write(held)
