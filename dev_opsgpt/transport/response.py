"""One answer of a server, while it arrives: parsed from the socket, read by one consumer."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httptools

from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.transport.errors import BadResponse, ConnectionBroken

# Bytes that may wait for a slow reader before the socket is no longer read.
HIGH_WATER = 262_144
MAX_HEAD = 65_536
# Source: RFC 9110, section 15.
HIGHEST_STATUS = 599


class Response:
    """Status, headers and body of one answer.

    The parser fills it, one consumer takes ``next()`` until it gives ``b""``. Every piece that
    arrived since the last call comes joined in one. A consumer that stops early calls ``close()``.
    ``complete`` is true when the whole answer has arrived (it may still wait to be read).
    """

    __slots__ = (
        "_chunks",
        "_connection_close",
        "_error",
        "_fields",
        "_framed",
        "_loop",
        "_parser",
        "_patient",
        "_paused",
        "_release",
        "_sink",
        "_size",
        "_transport",
        "_waiter",
        "complete",
        "headers",
        "last_activity",
        "on_body",
        "on_header",
        "received",
        "status",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        release: Callable[["Response", bool], None],
    ) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.last_activity = 0.0
        self.received = False
        self._transport = transport
        self._loop = loop
        self._release = release
        self._chunks: list[bytes] = []
        self._fields: dict[bytes, bytes] = {}
        # The parser puts what it finds where it belongs, without a call of ours for each piece.
        self.on_body = self._chunks.append
        self.on_header = self._fields.__setitem__
        self._parser = httptools.HttpResponseParser(self)
        self._size = 0
        self._framed = self._connection_close = self.complete = False
        self._paused = self._patient = False
        self._error: ApiError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], None] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, by its lower-case name; the last one where there are several."""
        return self.headers.get(name)

    async def head(self) -> None:
        """Waits for status and headers."""
        while not self.status:
            await self._news()
            self._check()

    async def next(self) -> bytes:
        """What has arrived of the body, at least one byte; ``b""`` at its end."""
        while not self._chunks:
            if self.complete:
                return b""
            await self._news()
            self._check()
        return self.taken()

    async def gather(self, seconds: float) -> None:
        """Lets more arrive before it is taken: for ``seconds``, or until the answer's end."""
        if self.complete or self._error is not None:
            return
        self._patient = True
        timer = self._loop.call_later(seconds, self._wake)
        try:
            await self._news()
        finally:
            timer.cancel()
            self._patient = False

    def taken(self) -> bytes:
        """What has arrived of the body and was not taken yet, without waiting; may be empty."""
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        self.resume()
        return data

    async def pipe(self, sink: Callable[[bytes], None]) -> None:
        """Gives what arrives to ``sink``, piece by piece, from within the socket's own callback;
        returns at the answer's end. A stream costs no task step a piece that way. ``pause`` and
        ``resume`` are the sink's means against an answer that comes too fast; it must not raise.
        """
        if self._chunks:
            sink(self.taken())
        self._sink = sink
        try:
            while not self.complete:
                await self._news()
                self._check()
        finally:
            self._sink = None

    def pause(self) -> None:
        """Stops reading from the server for a while."""
        if not self._paused and not self.complete:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads from the server again."""
        if self._paused:
            self._paused = False
            self.last_activity = self._loop.time()
            self._transport.resume_reading()

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body. Raises ``BadResponse`` past ``limit`` bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.next():
            size += len(data)
            if limit is not None and size > limit:
                self.close()
                raise BadResponse(f"The server's answer is larger than {limit} bytes.")
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.next():
            yield data

    @property
    def finished(self) -> bool:
        """Whether the whole answer has arrived and was taken."""
        return self.complete and not self._chunks

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for the server to send more of it."""
        return self._waiter is not None and not self._waiter.done() and not self._paused

    def close(self) -> None:
        """Ends the exchange. An answer that is not complete takes its connection with it, which
        is how the server learns that nobody listens any more."""
        if not self.complete and self._error is None:
            self._error = ConnectionBroken("The exchange was closed.")
            self._transport.abort()
            self._release(self, False)
            self._wake()

    # From here on: called by the connection and by the parser.

    def feed(self, data: bytes) -> None:
        """Takes what the socket gave."""
        self.received = True
        self.last_activity = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # What comes behind a whole answer is none of it, and spoils the connection only.
            self._transport.abort()
            if not self.complete:
                known = error.__context__
                wrong = BadResponse(f"The server did not answer in HTTP/1.1: {error}")
                self.fail(known if isinstance(known, ApiError) else wrong)
                return
        if self.complete:
            # It refers to us: without it we are freed at once, not by the garbage collector.
            del self._parser
        if not self.status:
            self._size += len(data)
            if self._size > MAX_HEAD:
                self.fail(BadResponse("The server's headers are too large."))
                self._transport.abort()
            return
        sink = self._sink
        if sink is not None:
            if self._chunks:
                chunks = self._chunks
                data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                chunks.clear()
                sink(data)
            if self.complete:
                self._wake()
            return
        self._size += len(data)
        if self._size > HIGH_WATER and self._chunks:
            self.pause()
        if self.complete or not self._patient:
            self._wake()

    def fail(self, error: ApiError) -> None:
        """Ends the answer with an error, unless it is complete."""
        if not self.complete and self._error is None:
            self._error = error
            self._release(self, False)
            self._wake()

    def end_of_stream(self) -> None:
        """The server closed the connection: the end of a body without a length, else a fault."""
        if self.status and not self._framed:
            self.on_message_complete()
            self._wake()
        else:
            self.fail(ConnectionBroken("The server closed the connection before its answer ended."))

    def on_headers_complete(self) -> None:
        """The headers are complete; interim answers (1xx) are passed over. Raises ``BadResponse``
        for those of a second answer, which nobody asked for, and for a status that is none."""
        if self.complete:
            raise BadResponse("The server answered twice.")
        fields = {name.lower(): value for name, value in self._fields.items()}
        self._fields.clear()
        self._size = 0
        status = self._parser.get_status_code()
        if status < 200:
            return
        if status > HIGHEST_STATUS:
            raise BadResponse(f"The server answered with {status}, which is no status.")
        self.headers = fields
        self._framed = b"content-length" in fields or b"transfer-encoding" in fields
        self.status = status
        self._connection_close = not self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """The body is complete: the connection is free for the next exchange."""
        if not self.status or self.complete or self._error is not None:
            return
        self.complete = True
        self.resume()
        self._release(self, self._framed and not self._connection_close)

    def _news(self) -> "asyncio.Future[None]":
        """A future that is done when something has happened; ``_check`` is to be called then."""
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _check(self) -> None:
        if self._error is not None and not self._chunks:
            raise self._error

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
