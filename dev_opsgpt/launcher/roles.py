"""What each kind of child runs, made from the settings. Heavy imports stay inside: a child loads
only what its role needs."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dev_opsgpt.config import ModelPlan, Settings, base_url
from dev_opsgpt.launcher.plan import engine_of
from dev_opsgpt.transport.server import App, Server, bind
from dev_opsgpt.worker.engine import Engine, EngineError


class Runtime(Protocol):
    """Something that serves on a port: a controller, a gateway, a worker."""

    @property
    def stopping(self) -> asyncio.Event:
        """Set when it wants to be stopped."""
        ...

    async def start(self) -> None:
        """Returns when it serves. Raises ``PortInUse``, ``EngineError``."""
        ...

    async def stop(self) -> None:
        """Drains, then ends it."""
        ...


@dataclass(frozen=True)
class Job:
    """One part of a child: the port it serves on, how it is made, and where it is then found."""

    port: int
    make: Callable[[], Runtime]
    address: Callable[[Runtime], str]


@dataclass(frozen=True)
class Membership:
    """To whom a worker belongs: the URL of its controller, the name of its launcher."""

    controller: str
    launcher: str | None


class ControllerRuntime:
    """A controller on its port. ``start`` raises ``PortInUse``."""

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings = settings
        self._port = port
        self._server: Server | None = None
        self._close: Callable[[], None] = lambda: None
        self.stopping = asyncio.Event()

    async def start(self) -> None:
        """Returns when requests are answered."""
        settings = self._settings
        sock = bind(settings.controller.host, self._port)
        app, self._close = _controller_app(settings)
        self._server = Server(app, sock, drain_timeout=settings.drain_timeout)
        await self._server.start()

    async def stop(self) -> None:
        """Ends the watches, answers what is in flight, stops."""
        self._close()
        if self._server is not None:
            await self._server.stop()


def _controller_app(settings: Settings) -> tuple[App, Callable[[], None]]:
    from dev_opsgpt.controller.app import create_app
    from dev_opsgpt.controller.options import AttachedServer, ControllerOptions

    attached = [
        AttachedServer(
            model=name,
            url=plan.worker.openai_server,
            upstream_model=plan.worker.upstream_model,
            api_key=plan.worker.api_key.get_secret_value() if plan.worker.api_key else None,
            limit=plan.worker.limit_worker_concurrency,
        )
        for plan in settings.models_to_start()
        for name in plan.served_names
        if plan.worker.openai_server is not None
    ]
    section = settings.controller
    app = create_app(
        ControllerOptions(
            secret=secret_of(settings),
            dispatch_method=section.dispatch_method,
            fastchat_workers=tuple(section.fastchat_workers),
            fastchat_clients=section.fastchat_clients,
            attached=tuple(attached),
            drain_timeout=settings.drain_timeout,
        )
    )
    return app, app.state.controller.close


def controller_job(settings: Settings, port: int) -> Job:
    """The controller."""
    section = settings.controller
    url = base_url(section.host, port, section.advertise_host)
    return Job(port, lambda: ControllerRuntime(settings, port), lambda _: url)


def gateway_job(settings: Settings, port: int, controller: str, declared: Sequence[str]) -> Job:
    """The gateway. ``declared`` are the models that are known to be on their way."""
    from dev_opsgpt.gateway.runtime import GatewayOptions, GatewayRuntime

    section = settings.gateway
    keys = {
        worker.openai_server: worker.api_key.get_secret_value()
        for worker in settings.workers.values()
        if worker.openai_server is not None and worker.api_key is not None
    }
    options = GatewayOptions(
        host=section.host,
        port=port,
        controller=controller,
        secret=secret_of(settings),
        api_keys=tuple(key.get_secret_value() for key in section.api_keys),
        declared=tuple(declared),
        attached_keys=keys,
        dispatch_method=settings.controller.dispatch_method,
        llm_base_url=section.llm_base_url,
        max_body_size=section.max_body_size,
        connect_timeout=section.connect_timeout,
        read_timeout=section.read_timeout,
        retries=section.retries,
        drain_timeout=settings.drain_timeout,
    )
    url = base_url(section.host, port)
    return Job(port, lambda: GatewayRuntime(options), lambda _: url)


def worker_job(settings: Settings, name: str, port: int, member: Membership) -> Job:
    """A worker for one model, local or online."""
    from dev_opsgpt.worker.runtime import WorkerOptions, WorkerRuntime

    plan = settings.models_to_start([name])[0]
    worker = plan.worker
    options = WorkerOptions(
        names=list(plan.served_names),
        host=worker.host,
        port=port,
        advertise_host=worker.advertise_host,
        controller=None if worker.no_register else member.controller,
        secret=secret_of(settings),
        launcher=member.launcher,
        fastchat_clients=settings.controller.fastchat_clients,
        limit=worker.limit_worker_concurrency,
        queue_size=worker.queue_size,
        queue_timeout=worker.queue_timeout,
        stream_interval=worker.stream_interval,
        max_body=settings.gateway.max_body_size,
        drain_timeout=settings.drain_timeout,
    )

    def address(runtime: Runtime) -> str:
        assert isinstance(runtime, WorkerRuntime)  # noqa: S101 - for the type checker
        return runtime.address

    return Job(port, lambda: WorkerRuntime(_engine(plan, port, member), options), address)


def _engine(plan: ModelPlan, port: int, member: Membership) -> Engine:
    """The engine or the provider behind a model, not yet started. Raises ``EngineError``."""
    if plan.kind == "online":
        return _provider(plan, port, member)
    engine = engine_of(plan)
    if engine != "llama_cpp":
        raise EngineError(
            f"{plan.name!r} needs the {engine} engine, which this version does not have; "
            "convert the model to GGUF to run it with llama.cpp"
        )
    if not isinstance(plan.path, Path):
        raise EngineError(f"{plan.name!r}: no such model file: {plan.path}")
    return _llama_cpp(plan, plan.path)


def _llama_cpp(plan: ModelPlan, path: Path) -> Engine:
    from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions

    worker = plan.worker
    options = LlamaOptions(
        path=path,
        context=worker.n_ctx,
        parallel=worker.limit_worker_concurrency,
        gpu_layers=0 if worker.device == "cpu" else worker.n_gpu_layers,
        threads=worker.n_threads,
    )
    return LlamaCppEngine(options, default_params=worker.default_params)


def secret_of(settings: Settings) -> str | None:
    """The cluster's secret in clear."""
    return settings.secret.get_secret_value() if settings.secret else None


def _provider(plan: ModelPlan, port: int, member: Membership) -> Engine:
    from dev_opsgpt.service.model_workers.loader import make_engine

    assert plan.online is not None  # noqa: S101 - for the type checker
    worker = plan.worker
    return make_engine(
        plan.name,
        plan.online.plain(),
        worker,
        controller_addr=member.controller,
        worker_addr=base_url(worker.host, port, worker.advertise_host),
    )
