"""uvicorn as an object: bind, serve, drain, stop; several in one process, no signal handlers.

What it adds to uvicorn is what a gateway for slow model answers needs: the application learns at
once that its client hung up, a stalled client is cut off after a while, and what is not HTTP gets
an error in OpenAI's shape.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import uvicorn

from dev_opsgpt.transport.connection import Connection, Hot
from dev_opsgpt.transport.patience import KEEP_ALIVE

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class PortInUse(Exception):
    """The address cannot be bound; the message is one clear line, ``errno`` the system's number
    where it has one."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


# Seconds between two looks at the connections, and how long an answer's Date stands.
TICK = 1.0
# Turns of the event loop until what is cut off has come to its end.
FAREWELL = 5


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def leave(self) -> None:
        """Has the server stop."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """uvicorn's looks ten times a second whether it is to stop, which is most of what an idle
        process of ours would do."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._leaving.wait()

    async def on_tick(self, counter: int) -> bool:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and connection.overdue(now):
                connection.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        # What has just been accepted is made a connection first, to be told as well.
        await asyncio.sleep(0)
        await super().shutdown(sockets)


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
        raise PortInUse(f"cannot listen on {host}:{port}: {reason}", error.errno) from None
    return sock


class Server:
    """Serves one application on some sockets.

    ``drain_timeout`` is how many seconds ``stop`` waits for requests in flight; those that are
    left then are cancelled. POSTs to the paths in ``hot`` go to its handlers instead.
    """

    def __init__(
        self,
        app: App,
        *sockets: socket.socket,
        hot: Hot = MappingProxyType({}),
        drain_timeout: float = 30.0,
    ) -> None:
        self._sockets = sockets
        self.port: int = sockets[0].getsockname()[1]
        config = uvicorn.Config(
            app,
            http=cast(Any, partial(Connection, hot)),
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
        self._task = asyncio.create_task(self._server.serve(sockets=[*self._sockets]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError("the application did not start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Closes the port at once, lets requests in flight finish, and those that come a moment
        later over connections that are open; then returns."""
        self._server.leave()
        await self.wait()

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        if self._task is not None:
            await self._task
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, Connection):
                connection.transport.abort()
        # Whoever stops next hears of all that was still under way.
        for _ in range(FAREWELL):
            await asyncio.sleep(0)
