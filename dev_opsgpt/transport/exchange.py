"""One request and its answer on the client's connection itself, without ASGI between: what the
few routes that carry nearly all traffic are answered through."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from dev_opsgpt.protocol import errors
from dev_opsgpt.protocol.errors import ApiError, RequestTooLarge

if TYPE_CHECKING:
    from dev_opsgpt.transport.connection import Connection

_JSON = b"content-type: application/json\r\n"
_CLOSE = b"connection: close\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


class Handler(Protocol):
    """Answers the requests of one path. ``max_body`` is the largest body in bytes."""

    max_body: int

    def begin(self, exchange: "Exchange") -> None:
        """Called when the head has arrived, before the body: strangers shall not make us hold
        theirs. Raises ``ApiError`` to refuse."""

    def refused(self, exchange: "Exchange", error: ApiError) -> None:
        """Called when the request, let in by ``begin``, is refused because its body is too large
        or broken; the client is told."""

    def abandoned(self, exchange: "Exchange") -> None:
        """Called when the connection of a request that was let in by ``begin`` is closed before
        the request was whole or its turn had come."""

    async def __call__(self, exchange: "Exchange") -> None:
        """Called when the request is whole. Leaves it answered, whatever happens, and raises
        nothing but ``CancelledError``."""


class _Nothing:
    """uvicorn tells whoever waits for a body that there is news; here nobody does."""

    def set(self) -> None:
        """Does nothing."""


class Exchange:
    """Stands where uvicorn has its cycle, so that both kinds of request share a connection.

    ``headers`` are the request's, by lower-case names; ``client`` is the peer's address, ``body``
    whole when the handler runs. An answer is one ``answer``, or ``begin``, any number of ``write``
    and one ``end``; ``extra`` header lines go into whichever head is sent. ``on_pause`` and
    ``on_resume`` are called when the client takes less than it is given. ``arrived`` and
    ``context`` are the handler's own.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_parts",
        "_resumed",
        "_size",
        "_transport",
        "arrived",
        "body",
        "client",
        "context",
        "disconnected",
        "extra",
        "handler",
        "headers",
        "keep_alive",
        "on_pause",
        "on_resume",
        "path",
        "paused",
        "refusal",
        "response_complete",
        "started",
        "task",
        "waits",
        "whole",
    )
    message_event = _Nothing()

    def __init__(
        self,
        connection: "Connection",
        handler: Handler,
        path: str,
        headers: dict[bytes, bytes],
        client: str,
        keep_alive: bool,
        chunked: bool,
    ) -> None:
        self._connection = connection
        self._transport = connection.transport
        self.handler = handler
        self.path = path
        self.headers = headers
        self.client = client
        self.keep_alive = keep_alive
        self._chunked = chunked
        self._parts: list[bytes] = []
        self._size = 0
        self._resumed: asyncio.Future[None] | None = None
        self.arrived = 0.0
        self.body = b""
        self.context: Any = None
        self.extra = b""
        self.refusal: ApiError | None = None
        self.whole = self.started = self.response_complete = False
        self.disconnected = self.paused = self.waits = False
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None

    # What the connection calls.

    def receive(self, parts: list[bytes]) -> None:
        """Takes the pieces of the body that have arrived, and empties the list."""
        if self.refusal is None:
            for part in parts:
                self._size += len(part)
            if self._size > self.handler.max_body:
                self.too_large()
            else:
                self._parts += parts
        parts.clear()

    def too_large(self) -> None:
        """The body is larger than the handler takes, or will be."""
        self._parts = []
        message = f"The request body is larger than {self.handler.max_body} bytes."
        self.refusal = RequestTooLarge(message)
        self.handler.refused(self, self.refusal)

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """The request is whole and it is its turn."""
        if self.refusal is not None:
            self.error(self.refusal)
            return
        parts = self._parts
        self.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self.task = loop.create_task(self.handler(self))

    def run_in_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """The same, for one that has waited: meanwhile its client may have hung up."""
        if not self.disconnected:
            self.run(loop)

    def hang_up(self) -> None:
        """The client is gone: whatever is done for it is let go at once, and what has not begun
        never does."""
        self.disconnected = True
        self.resume()
        if self.task is not None:
            self.task.cancel()
        elif self.refusal is None:
            self.handler.abandoned(self)

    def pause(self) -> None:
        """The client takes less than it is given."""
        self.paused = True
        if self.on_pause is not None:
            self.on_pause()

    def resume(self) -> None:
        """The client takes more again."""
        self.paused = False
        if self.on_resume is not None:
            self.on_resume()
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    # What the handler calls.

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        """Sends a whole answer. ``headers`` are lines, each with its CRLF."""
        self.started = self.response_complete = True
        connection = self._connection
        if not self.disconnected:
            connection.transport.write(
                b"%b%b%b%b%bcontent-length: %d\r\n\r\n%b"
                % (
                    STATUS_LINE[status],
                    connection.date(),
                    headers,
                    self.extra,
                    b"" if self.keep_alive else _CLOSE,
                    len(body),
                    body,
                )
            )
        connection.exchange_complete(self)

    def error(self, error: ApiError) -> None:
        """Sends an error in OpenAI's shape."""
        pairs = errors.headers(error).items()
        lines = "".join([f"{name}: {value}\r\n" for name, value in pairs]).encode("latin-1")
        self.answer(error.status, _JSON + lines, msgspec.json.encode(errors.openai_body(error)))

    def begin(self, status: int, headers: bytes, data: bytes = b"") -> None:
        """Sends the head of an answer whose length nobody knows, and its first bytes."""
        self.started = True
        connection = self._connection
        self.keep_alive = self.keep_alive and self._chunked
        close = b"" if self.keep_alive else _CLOSE
        date = connection.date()
        head = b"%b%b%b%b%b" % (STATUS_LINE[status], date, headers, self.extra, close)
        if not self._chunked:
            self._write(b"%b\r\n%b" % (head, data))
        elif data:
            self._write(b"%b%b%x\r\n%b\r\n" % (head, _CHUNKED, len(data), data))
        else:
            self._write(head + _CHUNKED)

    def write(self, data: bytes) -> None:
        """Sends more of the answer; ``data`` is not empty."""
        if not self.disconnected:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self, data: bytes = b"") -> None:
        """Sends the last bytes of the answer."""
        self.response_complete = True
        if not self._chunked:
            self._write(data)
        elif data:
            self._write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
        else:
            self._write(b"0\r\n\r\n")
        self._connection.exchange_complete(self)

    def fail(self, error: ApiError) -> None:
        """Ends an exchange that cannot go on: with the error while nothing has been sent, else by
        closing the connection, so that the client sees that its answer is cut."""
        if self.response_complete or self.disconnected:
            return
        if self.started:
            self.response_complete = True
            self._connection.transport.close()
        else:
            self.error(error)

    async def drained(self) -> None:
        """Returns when the client takes more; at once where it was not behind."""
        while self.paused and not self.disconnected:
            self._resumed = self._connection.loop.create_future()
            await self._resumed

    def _write(self, data: bytes) -> None:
        if not self.disconnected:
            self._connection.transport.write(data)
