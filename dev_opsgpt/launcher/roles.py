"""What each kind of child runs, made from the settings. Heavy imports stay inside: a child loads
only what its role needs."""

import argparse
import asyncio
import importlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from dev_opsgpt.config import LocalModel, ModelPlan, Settings, base_url, resolve_model_path
from dev_opsgpt.config.plan import says_its_limit
from dev_opsgpt.launcher.gateway_options import GatewayPlace, gateway_options, secret_of
from dev_opsgpt.launcher.plan import engine_of
from dev_opsgpt.launcher.threads import own_share
from dev_opsgpt.transport.server import Server, bind
from dev_opsgpt.worker.engine import Engine, EngineError

if TYPE_CHECKING:
    from dev_opsgpt.controller.app import Controller
    from dev_opsgpt.controller.options import ControllerOptions
    from dev_opsgpt.engines.llama_cpp import LlamaOptions

Kind = TypeVar("Kind")


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


@runtime_checkable
class Reloadable(Protocol):
    """A runtime that takes other options while it serves."""

    async def reload(self, options: Any) -> None:
        """Goes on by these options, those that it can take in place; what it was doing goes on.
        Whatever it raises, it serves as before."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A runtime that tells how its start goes on: ``tell`` is called, from any thread, with what it
    is at, and how much of that is done where it can be told."""

    tell: Callable[[str, float | None], None]


@dataclass(frozen=True)
class Job:
    """One part of a child: the port it serves on, how it is made, and where it is then found.

    ``options`` makes what ``Reloadable.reload`` takes from other settings and another command line.
    """

    port: int
    make: Callable[[], Runtime]
    address: Callable[[Runtime], str]
    options: Callable[[Settings, argparse.Namespace], Any] | None = None


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
        self._controller: Controller | None = None
        self.stopping = asyncio.Event()

    async def start(self) -> None:
        """Returns when requests are answered."""
        from dev_opsgpt.controller.app import create_app

        settings = self._settings
        sock = bind(settings.controller.host, self._port)
        app = create_app(controller_options(settings))
        self._controller = app.state.controller
        self._server = Server(app, sock, drain_timeout=settings.drain_timeout)
        await self._server.start()

    async def reload(self, options: "ControllerOptions") -> None:
        """Goes on by other options, and with the same table. Raises ``ValueError`` as a start
        does."""
        if self._controller is not None:
            self._controller.reload(options)

    async def stop(self) -> None:
        """Ends the watches, answers what is in flight, stops."""
        if self._controller is not None:
            self._controller.close()
        if self._server is not None:
            await self._server.stop()


def controller_options(settings: Settings) -> "ControllerOptions":
    """What a controller is made with."""
    from dev_opsgpt.controller.options import AttachedServer, ControllerOptions

    attached = [
        AttachedServer(
            model=name,
            url=plan.worker.openai_server,
            upstream_model=plan.worker.upstream_model,
            api_key=plan.worker.api_key.get_secret_value() if plan.worker.api_key else None,
            limit=plan.worker.limit_worker_concurrency,
            limited=says_its_limit(settings, plan.name),
        )
        for plan in settings.models_to_start()
        for name in plan.served_names
        if plan.worker.openai_server is not None
    ]
    section = settings.controller
    return ControllerOptions(
        secret=secret_of(settings),
        dispatch_method=section.dispatch_method,
        fastchat_workers=tuple(section.fastchat_workers),
        fastchat_clients=section.fastchat_clients,
        attached=tuple(attached),
        drain_timeout=settings.drain_timeout,
    )


def controller_job(settings: Settings, port: int) -> Job:
    """The controller."""
    section = settings.controller
    url = base_url(section.host, port, section.advertise_host)
    return Job(
        port,
        lambda: ControllerRuntime(settings, port),
        lambda _: url,
        lambda changed, _: controller_options(changed),
    )


def gateway_job(
    settings: Settings,
    place: GatewayPlace,
    placed: Callable[[argparse.Namespace], GatewayPlace],
    sockets: Sequence[socket.socket],
) -> Job:
    """One gateway, on the ``sockets`` that it has inherited, if any. ``placed`` reads its place
    from another command line."""
    from dev_opsgpt.gateway.runtime import GatewayRuntime

    options = gateway_options(settings, place)
    url = base_url(settings.gateway.host, place.port)
    return Job(
        place.port,
        lambda: GatewayRuntime(options, sockets),
        lambda _: url,
        lambda changed, arguments: gateway_options(changed, placed(arguments)),
    )


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
        otlp_endpoint=settings.gateway.otlp_endpoint,
        limit=_limit(plan),
        queue_size=worker.queue_size,
        queue_timeout=worker.queue_timeout,
        stream_interval=worker.stream_interval,
        max_body=settings.gateway.max_body_size,
        drain_timeout=settings.drain_timeout,
    )

    def address(runtime: Runtime) -> str:
        assert isinstance(runtime, WorkerRuntime)  # noqa: S101 - for the type checker
        return runtime.address

    return Job(port, lambda: WorkerRuntime(_engine(settings, plan, port, member), options), address)


def _limit(plan: ModelPlan) -> int:
    """How many requests the worker runs at once."""
    if plan.kind != "vllm":
        return plan.worker.limit_worker_concurrency
    from dev_opsgpt.launcher.vllm import vllm_limit

    return vllm_limit(plan.worker)


def _engine(settings: Settings, plan: ModelPlan, port: int, member: Membership) -> Engine:
    """The engine or the provider behind a model, not yet started. Raises ``EngineError``."""
    if plan.kind == "online":
        return _provider(plan, port, member)
    engine = engine_of(plan)
    if engine == "transformers":
        from dev_opsgpt.launcher.transformers_engine import make_engine

        return make_engine(plan, own_share(os.environ))
    if engine == "vllm":
        from dev_opsgpt.launcher.vllm import vllm_engine

        return vllm_engine(settings, plan, member.controller)
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
        share=own_share(os.environ),
    )
    if plan.local is not None and plan.local.model_type == "VL":
        return _llama_cpp_vision(plan, plan.local, options)
    kind = _own_class(plan, LlamaCppEngine)
    return kind(options, default_params=worker.default_params)


def _llama_cpp_vision(plan: ModelPlan, local: LocalModel, options: "LlamaOptions") -> Engine:
    from dev_opsgpt.engines.llama_cpp_vision import LlamaCppVisionEngine
    from dev_opsgpt.worker.images import ImageRules

    if local.mmproj_path is None:
        raise EngineError(f"{plan.name!r}: a vision model needs a projector (mmproj_path)")
    worker = plan.worker
    rules = ImageRules(
        count=worker.max_images,
        size=worker.max_image_size,
        pixels=worker.max_image_pixels,
        addresses=worker.allow_image_urls,
    )
    projector = Path(resolve_model_path(local.mmproj_path))
    kind = _own_class(plan, LlamaCppVisionEngine)
    return kind(options, projector, rules=rules, default_params=worker.default_params)


def _own_class(plan: ModelPlan, base: type[Kind]) -> type[Kind]:
    """The class that the model's entry names, else ``base``. Raises ``EngineError``."""
    named = plan.local.engine_class if plan.local is not None else None
    if named is None:
        return base
    module, _, name = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise EngineError(f"{plan.name!r}: engine_class {named} is not found: {error}") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise EngineError(f"{plan.name!r}: engine_class {named} is no {base.__name__}")
    return found


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
