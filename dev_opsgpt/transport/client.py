"""Our HTTP/1.1 client: what lets a Python gateway cost less than a router in Rust.

An ``asyncio.Protocol`` and httptools instead of a general client: no task, no queue and no copy
per piece of an answer. It keeps connections alive, times out, holds back a server that is faster
than its reader, and drops the connection of an answer that nobody wants any more.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Self, cast
from urllib.parse import urlsplit

from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.transport.errors import ConnectFailed, ConnectionBroken, ReadTimeout
from dev_opsgpt.transport.response import Response

Release = Callable[[Response, bool], None]

SWEEP = 1.0
IDLE_LIFETIME = 60.0
MAX_IDLE = 256


class Origin:
    """Where requests go: scheme, host and port of a URL, and the connections kept to it.

    ``base`` is the URL's path without a trailing slash, to be put before a route.
    Raises ``ValueError`` for what is not an http or https URL.
    """

    __slots__ = ("authority", "base", "host", "idle", "port", "tls")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL: {url!r}")
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.tls else 80)
        self.base = parts.path.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = parts.port is None or parts.port == (443 if self.tls else 80)
        self.authority = (host if default else f"{host}:{self.port}").encode("idna")
        self.idle: list[Connection] = []

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """A request's first line and headers, without Content-Length and the closing empty line.

        Raises ``ValueError`` where a value would break out of its line.
        """
        lines = [f"{method} {self.base}{path} HTTP/1.1", f"host: {self.authority.decode()}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header cannot hold a line end")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n"


class Connection(asyncio.Protocol):
    """One socket to an origin; it serves one exchange at a time."""

    __slots__ = ("idle_since", "loop", "lost", "release", "response", "transport")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, release: Callable[["Connection"], Release]
    ) -> None:
        # Kept, for asyncio.get_running_loop() is a system call.
        self.loop = loop
        self.release = release(self)
        self.transport: asyncio.Transport
        self.response: Response | None = None
        self.lost = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        # uvloop's transports are asyncio's in all but their class.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of the current answer; an idle server has nothing to say, so it is hung up on."""
        response = self.response
        if response is None:
            self.transport.abort()
            return
        response.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self.lost = True
        response, self.response = self.response, None
        if response is not None:
            response.end_of_stream() if exc is None else response.fail(
                ConnectionBroken("The connection to the server broke.")
            )


class Client:
    """Sends requests over kept connections.

    ``connect_timeout`` and ``read_timeout`` are seconds; the latter bounds every silence of a
    server, before its answer and within it, to within ``SWEEP`` seconds.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 600.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connect_timeout = connect_timeout
        self.read_timeout = read_timeout
        self._tls = tls
        self._active: dict[Response, Origin] = {}
        self._origins: dict[Origin, None] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def send(self, origin: Origin, head: bytes, body: bytes = b"") -> Response:
        """Sends a request and waits for the head of its answer.

        ``head`` is as ``Origin.head`` makes it. Raises ``ConnectFailed``, ``ConnectionBroken``,
        ``ReadTimeout`` or ``BadResponse``. A kept connection that the server had just closed is
        replaced once, unseen.
        """
        payload = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        while True:
            connection = self._kept(origin)
            reused = connection is not None
            if connection is None:
                connection = await self._connect(origin)
            response = self._exchange(origin, connection)
            try:
                connection.transport.write(payload)
                await response.head()
            except ConnectionBroken:
                if reused and not response.received:
                    continue
                raise
            except BaseException:
                response.close()
                raise
            return response

    async def request(
        self,
        method: str,
        url: str,
        *,
        path: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        """``send`` for calls that are rare: the URL is parsed anew and its connection not kept."""
        origin = Origin(url)
        found = {"connection": "close", **(headers or {})}
        return await self.send(origin, origin.head(method, path, found), body)

    def abort(self, origin: Origin, error: ApiError) -> None:
        """Fails every exchange with an origin that turned out to be dead, and forgets its
        connections."""
        for response in [r for r, o in self._active.items() if o is origin]:
            # ``send`` shall not begin anew there, as it does where a kept connection was stale.
            response.received = True
            response.fail(error)
        self.forget(origin)

    def forget(self, origin: Origin) -> None:
        """Closes the idle connections to an origin."""
        for connection in origin.idle:
            connection.transport.close()
        origin.idle.clear()
        self._origins.pop(origin, None)

    def close(self) -> None:
        """Ends everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for response in list(self._active):
            response.close()
        for origin in list(self._origins):
            self.forget(origin)

    def _kept(self, origin: Origin) -> Connection | None:
        while origin.idle:
            connection = origin.idle.pop()
            if not connection.lost and not connection.transport.is_closing():
                return connection
        return None

    async def _connect(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        if origin.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout(self.connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, partial(self._releaser, origin)),
                    origin.host,
                    origin.port,
                    ssl=self._tls if origin.tls else None,
                )
        except TimeoutError:
            raise ConnectFailed("The server did not accept the connection in time.") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConnectFailed(f"Cannot connect to the server: {reason}.") from None
        return connection

    def _exchange(self, origin: Origin, connection: Connection) -> Response:
        loop = connection.loop
        response = Response(connection.transport, loop, connection.release)
        connection.response = response
        self._active[response] = origin
        response.last_activity = loop.time()
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP, self._sweep)
        return response

    def _releaser(self, origin: Origin, connection: Connection) -> Release:
        return partial(self._release, origin, connection)

    def _release(
        self, origin: Origin, connection: Connection, response: Response, keep: bool
    ) -> None:
        """An exchange is over: its connection is kept for the next one, or dropped."""
        self._active.pop(response, None)
        connection.response = None
        if keep and not connection.lost and len(origin.idle) < MAX_IDLE:
            connection.idle_since = connection.loop.time()
            origin.idle.append(connection)
            self._origins[origin] = None
        else:
            # Not close(): a dead server would never take what is still buffered.
            connection.transport.abort()

    def _sweep(self) -> None:
        """Times out silent servers and drops old idle connections: one timer for all, instead of
        one for every wait."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for response in list(self._active):
            if response.waiting and now - response.last_activity > self.read_timeout:
                response.fail(ReadTimeout("The server did not answer in time."))
        for origin in list(self._origins):
            while origin.idle and now - origin.idle[0].idle_since > IDLE_LIFETIME:
                origin.idle.pop(0).transport.close()
            if not origin.idle:
                del self._origins[origin]
        busy = self._active or self._origins
        self._sweeper = loop.call_later(SWEEP, self._sweep) if busy else None
