"""One worker's life: bind, load, serve, register; drain, say goodbye, stop."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from dev_opsgpt import __version__
from dev_opsgpt.protocol.fastchat import Load
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.server import Server, bind
from dev_opsgpt.transport.telemetry import Telemetry, connect
from dev_opsgpt.worker.address import advertised
from dev_opsgpt.worker.admission import Admission
from dev_opsgpt.worker.app import create_app
from dev_opsgpt.worker.engine import Engine, Hosted
from dev_opsgpt.worker.memory import resident
from dev_opsgpt.worker.progress import Progressing, Tell, Thinned, silent
from dev_opsgpt.worker.registration import Registration
from dev_opsgpt.worker.release import Releaser

log = logging.getLogger(__name__)

# After the goodbye, gateways that chose this worker a moment before still find its port open.
GRACE = 0.5
# What the number of requests taken is told up to; then it begins anew.
COUNTED = 1_000_000_000


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker runs. Times are in seconds, sizes in bytes; ``controller`` is a URL, ``None``
    for a worker that registers nowhere."""

    names: list[str]
    host: str = "127.0.0.1"
    port: int = 0
    advertise_host: str | None = None
    controller: str | None = None
    secret: str | None = None
    launcher: str | None = None
    fastchat_clients: bool = False
    otlp_endpoint: str | None = None
    limit: int = 5
    queue_size: int = 64
    queue_timeout: float = 60.0
    stream_interval: int = 2
    max_body: int = 32 << 20
    drain_timeout: float = 30.0


class WorkerRuntime:
    """Runs one engine as a worker.

    ``start`` raises ``PortInUse`` and ``EngineError``. ``stopping`` is set by ``POST /release``;
    whoever started the worker waits for it and calls ``stop``. ``tell`` is told how the start goes
    on, by engines that say so.
    """

    def __init__(
        self, engine: Engine, options: WorkerOptions, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._options = options
        self._clock = clock
        self._client = Client()
        self._admission = Admission(options.limit, options.queue_size, options.queue_timeout)
        self._server: Server | None = None
        self._hosted = engine if isinstance(engine, Hosted) else None
        self._following: asyncio.Task[None] | None = None
        self._registration: Registration | None = None
        self._telemetry: Telemetry | None = None
        self.stopping = asyncio.Event()
        self.address = ""
        self.tell: Tell = silent

    async def start(self) -> None:
        """Returns when requests are answered and the controller, if it is there, knows."""
        options = self._options
        # The port first: a model takes minutes to load, and a port that is taken is known at once.
        sock = bind(options.host, options.port)
        if isinstance(self._engine, Progressing):
            self._engine.progress = Thinned(self.tell)
        try:
            await self._engine.start()
        except BaseException:
            sock.close()
            raise
        controller = options.controller
        port = sock.getsockname()[1]
        self.address = advertised(options.host, port, options.advertise_host, controller or "")
        release = Releaser(
            self._client, controller or "", options.names[0], self.stopping, options.secret
        )
        if options.otlp_endpoint is not None:
            self._telemetry = connect(options.otlp_endpoint, "opsgpt-worker")
        app = create_app(
            self._engine,
            options.names,
            self._admission,
            secret=options.secret,
            fastchat_clients=options.fastchat_clients,
            max_body=options.max_body,
            stream_interval=options.stream_interval,
            telemetry=self._telemetry,
            release=release,
            address=self.address,
            clock=self._clock,
        )
        self._server = Server(app, sock, drain_timeout=options.drain_timeout)
        await self._server.start()
        if controller is not None:
            await self._register(controller)

    async def _register(self, controller: str) -> None:
        options = self._options
        self._registration = Registration(
            self._client,
            controller,
            self.address,
            options.names,
            self._load,
            secret=options.secret,
            launcher=options.launcher,
            version=__version__,
            abilities=self._engine.abilities,
            direct=lambda: self._hosted.direct if self._hosted is not None else None,
        )
        self._registration.start()
        if self._hosted is not None:
            self._following = asyncio.create_task(_follow(self._hosted, self._registration))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self._registration.registered.wait()

    def _load(self) -> Load:
        memory = resident() or 0
        if self._hosted is not None:
            load = self._hosted.load
            taken = None if load.taken is None else load.taken % COUNTED
            return structs.replace(load, taken=taken, memory=memory)
        admission = self._admission
        return Load(
            admission.running,
            admission.waiting,
            admission.limit,
            admission.taken % COUNTED,
            memory,
        )

    async def stop(self) -> None:
        """Drains: leaves the table, answers what is in flight, frees the engine."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._registration is not None:
            await self._registration.stop()
            await asyncio.sleep(GRACE)
        self._admission.close()
        if not await self._drained(self._options.drain_timeout):
            log.warning("requests were still in flight after %s s", self._options.drain_timeout)
        if self._server is not None:
            await self._server.stop()
        self._client.close()
        await self._engine.stop()
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.close)

    async def _drained(self, timeout: float) -> bool:
        """Waits for what came through the worker, and for what came past it."""
        waits = [self._admission.drained(timeout)]
        if self._hosted is not None:
            waits.append(self._hosted.drained(timeout))
        return all(await asyncio.gather(*waits))


async def _follow(hosted: Hosted, registration: Registration) -> None:
    """Has the worker known while its server lives, and gone from the table while it does not, so
    that requests go elsewhere."""
    async for alive in hosted.lives():
        if alive:
            registration.start()
        else:
            await registration.stop(returns=True)
