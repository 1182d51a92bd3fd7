"""One gateway's life: its parts put together, started, drained, stopped."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from dev_opsgpt.gateway.auth import Keys
from dev_opsgpt.gateway.fastchat_worker import FastChatWorkers
from dev_opsgpt.gateway.hot_path import PATHS, HotPath
from dev_opsgpt.gateway.pages import Pages, create_pages
from dev_opsgpt.gateway.passthrough import PATH, PassThrough
from dev_opsgpt.gateway.upstreams import Upstreams
from dev_opsgpt.gateway.watch import Watch
from dev_opsgpt.routing.dispatch import dispatcher
from dev_opsgpt.routing.fleet import Fleet
from dev_opsgpt.transport.asgi import CancelOnDisconnect
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import App, Server, bind

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatewayOptions:
    """How a gateway runs. Times are in seconds, sizes in bytes.

    ``controller`` is its URL; ``declared`` the models that the configuration starts;
    ``attached_keys`` maps the URL of an attached OpenAI server to its key.
    """

    host: str = "127.0.0.1"
    port: int = 8888
    controller: str = "http://127.0.0.1:20001"
    secret: str | None = None
    api_keys: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    attached_keys: Mapping[str, str] = field(default_factory=dict)
    dispatch_method: str = "least_load"
    llm_base_url: str | None = None
    max_body_size: int = 32 << 20
    connect_timeout: float = 5.0
    read_timeout: float = 600.0
    retries: int = 2
    drain_timeout: float = 30.0


def create_app(
    options: GatewayOptions,
    *,
    clock: Callable[[], float] = time.monotonic,
    rng: Random | None = None,
) -> App:
    """The gateway as an ASGI application; it watches its controller while it lives.

    Raises ``ValueError`` for a dispatch method or URL that does not exist.
    """
    client = Client(connect_timeout=options.connect_timeout, read_timeout=options.read_timeout)
    fleet = Fleet(options.declared)
    upstreams = Upstreams(client, secret=options.secret, attached_keys=options.attached_keys)
    keys = Keys(options.api_keys)
    hot_path = HotPath(
        fleet,
        dispatcher(options.dispatch_method, rng or Random()),  # noqa: S311 - no secret hangs on it
        upstreams,
        FastChatWorkers(client),
        keys,
        max_body=options.max_body_size,
        retries=options.retries,
        clock=clock,
    )
    voice = PassThrough(hot_path, client, keys, options.llm_base_url, options.max_body_size)
    pages = create_pages(Pages(fleet, upstreams, clock), keys)
    watch = Watch(fleet, upstreams, client, options.controller, secret=options.secret, clock=clock)

    @asynccontextmanager
    async def live() -> AsyncIterator[None]:
        task = asyncio.create_task(watch.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            client.close()

    routes = {path: {"POST": hot_path} for path in PATHS} | {PATH: {"POST": voice}}
    return CancelOnDisconnect(Router(routes, fallback=pages, lifespan=live))


class GatewayRuntime:
    """Runs a gateway. ``start`` raises ``PortInUse``."""

    def __init__(self, options: GatewayOptions) -> None:
        self._options = options
        self._server: Server | None = None
        self.stopping = asyncio.Event()

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._server.port if self._server is not None else self._options.port

    async def start(self) -> None:
        """Returns when requests are answered."""
        options = self._options
        sock = bind(options.host, options.port)
        app = create_app(options)
        self._server = Server(app, sock, drain_timeout=options.drain_timeout)
        await self._server.start()
        log.info("the gateway answers on port %s", self.port)

    async def stop(self) -> None:
        """Closes the port, lets answers in flight end, stops."""
        if self._server is not None:
            await self._server.stop()
