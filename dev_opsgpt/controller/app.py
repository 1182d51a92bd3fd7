"""The controller's application: its parts put together, and every route it has."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from random import Random, SystemRandom

import httpx
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dev_opsgpt.controller import http
from dev_opsgpt.controller.auth import Access, Guard
from dev_opsgpt.controller.by_hand import ByHand
from dev_opsgpt.controller.fastchat_routes import FastChatRoutes
from dev_opsgpt.controller.launchers import Launchers
from dev_opsgpt.controller.loads import Loads
from dev_opsgpt.controller.locks import NamedLocks
from dev_opsgpt.controller.opsgpt_routes import OpsgptRoutes
from dev_opsgpt.controller.options import ControllerOptions
from dev_opsgpt.controller.peers import Peers, new_client
from dev_opsgpt.controller.probe import Probes
from dev_opsgpt.controller.registry import Registry
from dev_opsgpt.controller.release import Releases
from dev_opsgpt.controller.retire import Retirer
from dev_opsgpt.controller.sweep import sweep_forever
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.routing.dispatch import dispatcher
from dev_opsgpt.transport.asgi import ClientGone, bearer

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """One row of the route table."""

    method: str
    path: str
    access: Access
    handler: Handler


def routes(fastchat: FastChatRoutes, ours: OpsgptRoutes) -> tuple[Route, ...]:
    """The whole surface, and what each route asks of its callers."""
    return (
        Route("POST", "/register_worker", Access.WORKER, fastchat.register_worker),
        Route("POST", "/receive_heart_beat", Access.WORKER, fastchat.receive_heart_beat),
        Route("POST", "/refresh_all_workers", Access.SECRET, fastchat.refresh_all_workers),
        Route("POST", "/list_models", Access.CLIENT, fastchat.list_models),
        Route("POST", "/list_multimodal_models", Access.CLIENT, fastchat.list_multimodal_models),
        Route("POST", "/list_language_models", Access.CLIENT, fastchat.list_language_models),
        Route("POST", "/get_worker_address", Access.CLIENT, fastchat.get_worker_address),
        Route("POST", "/worker_generate_stream", Access.CLIENT, fastchat.worker_generate_stream),
        Route("POST", "/worker_get_status", Access.CLIENT, fastchat.worker_get_status),
        Route("GET", "/test_connection", Access.OPEN, fastchat.connection),
        Route("GET", "/health", Access.OPEN, ours.health),
        Route("POST", "/deregister_worker", Access.SECRET, ours.deregister_worker),
        Route("POST", "/drain_worker", Access.SECRET, ours.drain_worker),
        Route("GET", "/list_workers", Access.SECRET, ours.list_workers),
        Route("GET", "/watch", Access.SECRET, ours.watch),
        Route("POST", "/release_worker", Access.SECRET, ours.release_worker),
        Route("GET", "/models", Access.SECRET, ours.models),
        Route("POST", "/load_model", Access.SECRET, ours.load_model),
        Route("POST", "/unload_model", Access.SECRET, ours.unload_model),
        Route("POST", "/scale_model", Access.SECRET, ours.scale_model),
        Route("POST", "/launchers/connect", Access.SECRET, ours.connect_launcher),
        Route("POST", "/launchers/models", Access.SECRET, ours.launcher_models),
        Route("POST", "/launchers/report", Access.SECRET, ours.launcher_report),
        Route("POST", "/launchers/reply", Access.SECRET, ours.launcher_reply),
    )


@dataclass(frozen=True)
class Controller:
    """The parts of a running controller, for whoever runs it (``app.state.controller``)."""

    registry: Registry
    launchers: Launchers
    loads: Loads
    routes: tuple[Route, ...]
    guard: Guard
    retirer: Retirer
    probes: Probes
    rng: Random

    def reload(self, options: ControllerOptions) -> None:
        """Goes on by other options, with the same table; the secret and the intervals stay. Raises
        ``ValueError`` as ``create_app`` does, and has then changed nothing."""
        chosen = dispatcher(options.dispatch_method, self.rng)
        self.probes.set(options.attached)
        self.registry.use(chosen)
        self.guard.allow(options.fastchat_workers, options.fastchat_clients)
        self.retirer.drain_timeout = options.drain_timeout

    def close(self) -> None:
        """Ends the open watches and launcher connections. To be called before the server is
        stopped, which else would wait for them."""
        self.registry.close()
        self.launchers.close()


def create_app(
    options: ControllerOptions,
    *,
    client: httpx.AsyncClient | None = None,
    clock: Callable[[], float] = time.monotonic,
    rng: Random | None = None,
) -> FastAPI:
    """A controller as an ASGI application.

    ``client`` makes its outgoing calls (its own by default), ``clock`` gives the monotonic seconds
    that expiry goes by, ``rng`` the chance of the dispatch policies. Raises ``ValueError`` for a
    dispatch method that does not exist or attached servers that contradict each other.
    """
    calls = client or new_client()
    controller = _put_together(options, calls, clock, rng or SystemRandom())
    app = FastAPI(
        title="OpsGPT Serve controller",
        lifespan=_lifespan(controller, options, calls if client is None else None),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={
            ApiError: http.on_api_error,
            HTTPException: http.on_http_error,
            Exception: http.on_api_error,
        },
    )
    app.state.controller = controller
    for route in controller.routes:
        app.add_route(route.path, _guarded(route, controller.guard), methods=[route.method])
    return app


def _put_together(
    options: ControllerOptions,
    calls: httpx.AsyncClient,
    clock: Callable[[], float],
    rng: Random,
) -> Controller:
    guard = Guard(options.secret, options.fastchat_workers, options.fastchat_clients)
    locks = NamedLocks()
    launchers = Launchers(lambda *told: loads.came(*told), lambda name: loads.left(name))
    registry = Registry(
        dispatcher(options.dispatch_method, rng),
        clock,
        heard=lambda *told: loads.heard(*told),
        lost=lambda address: loads.lost(address),
    )
    peers = Peers(calls, options.secret)
    probes = Probes(registry, peers, options.probe_interval)
    probes.set(options.attached)
    retirer = Retirer(registry, launchers, peers, options)
    loads = Loads(launchers, retirer, locks, options.start_timeout, clock)
    loads.tell(registry.models_changed)
    releases = Releases(registry, launchers, retirer, options.start_timeout, locks, loads.residency)
    table = routes(
        FastChatRoutes(registry, peers, guard),
        OpsgptRoutes(registry, launchers, releases, loads, ByHand(loads)),
    )
    return Controller(registry, launchers, loads, table, guard, retirer, probes, rng)


def _lifespan(
    controller: Controller, options: ControllerOptions, own: httpx.AsyncClient | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What runs beside the requests; ``own`` is a client that ends with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        sweep = asyncio.create_task(sweep_forever(controller.registry, options.sweep_interval))
        loading = asyncio.create_task(controller.loads.run())
        controller.probes.start()
        yield
        controller.close()
        sweep.cancel()
        loading.cancel()
        await asyncio.wait([sweep, loading])
        await controller.probes.stop()
        if own is not None:
            await own.aclose()

    return lifespan


def _guarded(route: Route, guard: Guard) -> Handler:
    async def endpoint(request: Request) -> Response:
        request.state.trusted = guard.admit(route.access, bearer(request.scope))
        try:
            return await route.handler(request)
        except ClientGone:
            return Response(status_code=400)  # to nobody

    return endpoint
