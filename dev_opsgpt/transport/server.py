"""uvicorn as an object: bind, serve, drain, stop; several in one process, no signal handlers.

What it adds to uvicorn is what a gateway for slow model answers needs: the application learns at
once that its client hung up, a stalled client is cut off after a while, and what is not HTTP gets
an error in OpenAI's shape.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any, cast

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from dev_opsgpt.protocol.errors import InvalidRequest, openai_body

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ON_DISCONNECT = "opsgpt.on_disconnect"
KEEP_ALIVE = 75
# Seconds that a client may take to send a request, and to take any of an answer that waits for it.
RECEIVE_TIMEOUT = 120.0
WRITE_TIMEOUT = 120.0


class PortInUse(Exception):
    """The address cannot be bound; the message is one clear line."""


class _Head:
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
        if not self._held:
            self._held = data
            self._loop.call_soon(self._flush)
            return
        held, self._held = self._held, b""
        self._cycle.transport = self._transport
        self._transport.writelines((held, data))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._cycle.transport = self._transport
            self._transport.write(held)


class _Protocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.receiving_since: float | None = None
        self.stalled_since: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.receiving_since = self.stalled_since = None
        if self.cycle is not None and not self.cycle.response_complete:
            scope: Scope = self.cycle.scope  # type: ignore[assignment]
            hook: Callable[[], None] | None = scope.get(ON_DISCONNECT)
            if hook is not None:
                hook()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        _Head(cycle, self.loop)
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.receiving_since = self.loop.time()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.receiving_since = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stalled_since = None

    def send_400_response(self, msg: str) -> None:
        body = msgspec.json.encode(openai_body(InvalidRequest(msg, code="invalid_http")))
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def overdue(self, now: float) -> bool:
        """Whether the client has held the connection up for too long."""
        receiving, stalled = self.receiving_since, self.stalled_since
        return (receiving is not None and now - receiving > RECEIVE_TIMEOUT) or (
            stalled is not None and now - stalled > WRITE_TIMEOUT
        )


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, _Protocol) and connection.overdue(now):
                    connection.transport.abort()
        return await super().on_tick(counter)


def bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises ``PortInUse``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        raise PortInUse(f"cannot listen on {host}:{port}: {reason}") from None
    return sock


class Server:
    """Serves one application on one socket.

    ``drain_timeout`` is how many seconds ``stop`` waits for requests in flight; those that are
    left then are cancelled.
    """

    def __init__(self, app: App, sock: socket.socket, *, drain_timeout: float = 30.0) -> None:
        self._socket = sock
        self.port: int = sock.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=4096,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(drain_timeout)),
        )
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the application has started and connections are accepted.

        Raises what the application's start-up raised, as ``RuntimeError``.
        """
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError("the application did not start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Closes the port at once, lets requests in flight finish, then returns."""
        self._server.should_exit = True
        await self.wait()

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        if self._task is not None:
            await self._task
