"""Which processes are started, in which order, and where each listens: decided, not done.

The controller comes first; the gateway and the workers follow together, so that the gateway can
already say "the model is loading" while a model loads. Each replica of a local model has a process
of its own, all online models share one.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dev_opsgpt.config import (
    ConfigError,
    ModelPlan,
    Problem,
    Settings,
    WorkerSettings,
    base_url,
)
from dev_opsgpt.config.plan import kind_of, wanted_models
from dev_opsgpt.launcher.listening import Seat
from dev_opsgpt.launcher.threads import cores_here, share_cores, thread_environment

Role = Literal["controller", "gateway", "engine", "providers"]
Engine = Literal["llama_cpp", "transformers", "vllm"]

CHILD = (sys.executable, "-P", "-m", "dev_opsgpt.launcher.children")
"""How a process of ours is started; ``-P`` keeps the working directory's modules out."""
ONLINE_MODELS = "online models"
"""Name of the process that all online models share."""
_INDEX, _COUNT = "--index", "--count"
_ENGINE_NAMES: Mapping[Engine, str] = {
    "llama_cpp": "llama.cpp",
    "transformers": "transformers",
    "vllm": "vLLM",
}


@dataclass(frozen=True)
class Selection:
    """What of the service is started here; all of it by default.

    ``models`` names exactly the models to start, None means those that the configuration starts.
    ``controller_address`` is the URL of a controller elsewhere, which is used instead of one of
    our own.
    """

    controller: bool = True
    gateway: bool = True
    local: bool = True
    online: bool = True
    models: tuple[str, ...] | None = None
    controller_address: str | None = None


@dataclass(frozen=True)
class Listen:
    """A port that is bound, and the key of the configuration that sets it."""

    host: str
    port: int
    key: str


@dataclass(frozen=True)
class PlannedWorker:
    """One address that serves one model; ``served_by`` names the engine or the provider."""

    model: str
    names: tuple[str, ...]
    served_by: str
    listen: Listen
    address: str
    registers: bool = True


@dataclass(frozen=True)
class ProcessSpec:
    """One process: how it is called to people, what it runs, where it listens.

    ``command`` is completed by the workers (``argv``). ``env`` is set on top of the launcher's.
    ``settings`` are those that the process is handed, ``seat`` tells the sockets that it inherits.
    """

    name: str
    role: Role
    command: tuple[str, ...]
    listen: Listen | None = None
    workers: tuple[PlannedWorker, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings, repr=False, compare=False)
    seat: Seat | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command line."""
        models = (("--model", worker.model, str(worker.listen.port)) for worker in self.workers)
        return (*self.command, *(word for words in models for word in words))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line from the role on."""
        return self.argv[len(CHILD) :]

    @property
    def listens(self) -> tuple[Listen, ...]:
        """Every port that the process binds."""
        own = () if self.listen is None else (self.listen,)
        return (*own, *(worker.listen for worker in self.workers))

    def without(self, address: str) -> "ProcessSpec":
        """The same process without the worker of that address."""
        rest = tuple(worker for worker in self.workers if worker.address != address)
        return replace(self, workers=rest)


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that one launcher starts, in the order of starting.

    ``controller`` and ``gateway`` are URLs; the gateway's is None where none is started here.
    """

    processes: tuple[ProcessSpec, ...]
    controller: str
    gateway: str | None
    attached: tuple[ModelPlan, ...] = ()

    @property
    def owns_controller(self) -> bool:
        """Whether the controller is one of the processes."""
        return any(spec.role == "controller" for spec in self.processes)


def engine_of(plan: ModelPlan) -> Engine:
    """The engine that runs a local model: as configured, else llama.cpp for a ``.gguf`` file and
    transformers for everything else."""
    if plan.kind == "vllm":
        return "vllm"
    if plan.local is not None and plan.local.engine != "auto":
        return plan.local.engine
    return "llama_cpp" if Path(str(plan.path)).suffix == ".gguf" else "transformers"


def engine_name(plan: ModelPlan) -> str:
    """What runs a local model, as people call it."""
    return _ENGINE_NAMES[engine_of(plan)]


def make_plan(
    settings: Settings, selection: Selection, launcher: str, run_dir: Path | None = None
) -> LaunchPlan:
    """Plan the processes. ``launcher`` is the name that the workers give as theirs, ``run_dir`` the
    folder that the gateways share.

    Raises ``ConfigError`` for a model that is declared nowhere or that the selection excludes.
    """
    controller = selection.controller_address or settings.controller_address
    models = selected(settings, selection)
    processes: list[ProcessSpec] = []
    if selection.controller and selection.controller_address is None:
        processes.append(_controller(settings))
    if selection.gateway:
        declared = models or settings.models_to_start()
        processes.extend(_gateways(settings, controller, declared, run_dir))
    processes.extend(model_processes(settings, models, controller, launcher))
    return LaunchPlan(
        processes=tuple(processes),
        controller=controller,
        gateway=settings.gateway_address if selection.gateway else None,
        attached=tuple(model for model in models if model.kind == "attached"),
    )


def model_processes(
    settings: Settings, models: Sequence[ModelPlan], controller: str, launcher: str
) -> list[ProcessSpec]:
    """The worker processes for some models: one a replica of a local model, one for all online
    models together. Local ones share the machine's cores with all that the configuration starts."""
    threads = share_cores(_engines(settings, models), cores_here())
    common = ("--controller", controller, "--launcher", launcher)
    processes = []
    for model in models:
        if model.kind not in ("local", "vllm"):
            continue
        for index, worker in enumerate(_workers(settings, model)):
            name = model.name if index == 0 else f"{model.name} ({index + 1})"
            command = (*CHILD, "engine", *common)
            processes.append(
                ProcessSpec(
                    name,
                    "engine",
                    command,
                    workers=(worker,),
                    env={**_visible_gpus(model), **thread_environment(threads[model.name])},
                    settings=settings,
                )
            )
    online = [w for model in models if model.kind == "online" for w in _workers(settings, model)]
    if online:
        command = (*CHILD, "providers", *common)
        processes.append(
            ProcessSpec(
                ONLINE_MODELS, "providers", command, workers=tuple(online), settings=settings
            )
        )
    return processes


def _engines(settings: Settings, models: Sequence[ModelPlan]) -> dict[str, WorkerSettings]:
    """The models that engines of this machine run: these, and those that the configuration
    starts."""
    names = [*wanted_models(settings), *(model.name for model in models)]
    here = dict.fromkeys(name for name in names if kind_of(settings, name) in ("local", "vllm"))
    return {name: settings.worker(name) for name in here}


def selected(settings: Settings, selection: Selection) -> list[ModelPlan]:
    """The models that a selection starts. Raises ``ConfigError`` as ``make_plan`` does."""
    if selection.models is None and not (selection.local or selection.online):
        return []
    plans = settings.models_to_start(selection.models)
    kinds = {"local": selection.local, "vllm": selection.local, "online": selection.online}
    kinds["attached"] = selection.controller
    left_out = [plan.name for plan in plans if not kinds[plan.kind]]
    if selection.models is not None and left_out:
        raise ConfigError(_excluded(name, settings) for name in left_out)
    return [plan for plan in plans if kinds[plan.kind]]


def _excluded(name: str, settings: Settings) -> Problem:
    what, mend = "a local", "Add -m/--model-worker, and leave out -i/--lite"
    if name in settings.online_models:
        what, mend = "an online", "Add -p/--api-worker"
    message = f'"{name}" is {what} model, and the flags start none of those'
    return Problem("error", "command line", "-n/--model-name", message, mend)


def _controller(settings: Settings) -> ProcessSpec:
    section = settings.controller
    listen = Listen(section.host, section.port, 'FSCHAT_CONTROLLER["port"]')
    command = (*CHILD, "controller", "--port", str(section.port))
    return ProcessSpec("controller", "controller", command, listen, settings=settings)


def _gateways(
    settings: Settings, controller: str, models: Sequence[ModelPlan], run_dir: Path | None
) -> list[ProcessSpec]:
    """The gateways, all on one port. They are told which models are on their way, to tell them
    from unknown ones."""
    section = settings.gateway
    listen = Listen(section.host, section.port, 'FSCHAT_OPENAI_API["port"]')
    names = dict.fromkeys(name for model in models for name in model.served_names)
    declared = [word for name in names for word in ("--declared", name)]
    shared = [] if run_dir is None else ["--runtime-dir", str(run_dir)]
    count = section.gateway_workers
    specs = []
    for index in range(count):
        name = "gateway" if index == 0 else f"gateway ({index + 1})"
        place = (_INDEX, str(index), _COUNT, str(count))
        where = ("--port", str(section.port), "--controller", controller)
        command = (*CHILD, "gateway", *where, *place, *shared, *declared)
        seat = Seat(section.host, section.port, index, count)
        specs.append(ProcessSpec(name, "gateway", command, listen, settings=settings, seat=seat))
    return specs


def gateway_index(spec: ProcessSpec) -> int:
    """The number of a gateway among those that run."""
    return int(spec.command[spec.command.index(_INDEX) + 1])


def gateway_at(spec: ProcessSpec, index: int, count: int) -> ProcessSpec:
    """The same gateway under another number, among ``count`` that run."""
    command = list(spec.command)
    command[command.index(_INDEX) + 1] = str(index)
    command[command.index(_COUNT) + 1] = str(count)
    return replace(spec, command=tuple(command))


def _workers(settings: Settings, model: ModelPlan) -> list[PlannedWorker]:
    served_by = model.provider or engine_name(model)
    return [
        PlannedWorker(
            model=model.name,
            names=model.served_names,
            served_by=served_by,
            listen=Listen(model.worker.host, port, _port_key(settings, model.name, port)),
            address=base_url(model.worker.host, port, model.worker.advertise_host),
            registers=not model.worker.no_register,
        )
        for port in model.ports
    ]


def _port_key(settings: Settings, name: str, port: int) -> str:
    """The key behind a worker's port: the model's own, or the one that the numbers count from."""
    own = settings.worker(name).port == port
    entry = settings.workers.get(name)
    if own and not (entry is not None and entry.port == port):
        return f'ONLINE_LLM_MODEL["{name}"]["port"]'
    return f'FSCHAT_MODEL_WORKERS["{name if own else "default"}"]["port"]'


def _visible_gpus(model: ModelPlan) -> dict[str, str]:
    gpus = model.worker.gpus
    return {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}
