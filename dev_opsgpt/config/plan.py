"""Which models are started, by what, and on which ports: decided from the settings alone."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dev_opsgpt.config.models import LocalModel, OnlineModel, WorkerSettings
from dev_opsgpt.config.paths import base_url, resolve_model_path
from dev_opsgpt.config.problems import ConfigError, KeyPath, Problem, nearest, spell

if TYPE_CHECKING:
    from dev_opsgpt.config.settings import Settings

Kind = Literal["local", "vllm", "online", "attached"]

FIRST_WORKER_PORT = 20002
DEFAULT_PROVIDER = "OpenAIWorker"
"""The provider of an ONLINE_LLM_MODEL entry that names none: OpenAI's own API."""


@dataclass(frozen=True)
class ModelPlan:
    """One model to serve. `worker.port` is the first of `ports`; an attached server has none.

    `path` is where a local or vLLM model lies (a string: a hub name), `local` its entry in
    llm_model_dict, `online` and `provider` belong to an online model.
    """

    name: str
    kind: Kind
    worker: WorkerSettings
    ports: tuple[int, ...] = ()
    path: Path | str | None = None
    local: LocalModel | None = None
    online: OnlineModel | None = None
    provider: str | None = None

    @property
    def served_names(self) -> tuple[str, ...]:
        """The names under which clients find the model."""
        return tuple(self.worker.model_names or (self.name,))

    @property
    def addresses(self) -> tuple[str, ...]:
        """The URL of each replica, as registered with the controller."""
        worker = self.worker
        if worker.openai_server is not None:
            return (worker.openai_server,)
        return tuple(base_url(worker.host, port, worker.advertise_host) for port in self.ports)


def declared_models(settings: "Settings") -> list[str]:
    """Give every model name that the configuration declares, in order, each once."""
    attached = (name for name, entry in settings.workers.items() if entry.openai_server)
    tables = (settings.local_models, settings.vllm_models, settings.online_models, attached)
    return list(dict.fromkeys(name for table in tables for name in table))


def kind_of(settings: "Settings", name: str) -> Kind | None:
    """Tell what serves a model: a server attached under its name, else vLLM, else a local engine
    (both only with USE_FASTCHAT), else a provider; None for a name that nothing can serve."""
    entry = settings.workers.get(name)
    if entry is not None and entry.openai_server:
        return "attached"
    if settings.use_fastchat and name in settings.vllm_models:
        return "vllm"
    if settings.use_fastchat and name in settings.local_models:
        return "local"
    return "online" if name in settings.online_models else None


def startable_models(settings: "Settings") -> list[str]:
    """Give the declared models that something can serve; attached servers are not started."""
    names = declared_models(settings)
    return [name for name in names if kind_of(settings, name) not in (None, "attached")]


def loadable_models(settings: "Settings") -> list[str]:
    """Give the local models that a request may load: those that would be found by clients."""
    found = []
    for name in startable_models(settings):
        worker = settings.worker(name)
        local = kind_of(settings, name) in ("local", "vllm")
        if local and worker.load_on_demand and not worker.no_register:
            found.append(name)
    return found


def wanted_models(settings: "Settings") -> list[str]:
    """Give the names to serve: LLM_MODEL, LLM_MODELs, entries with a provider, attached servers."""
    named = [name for name in (settings.llm_model, *settings.llm_models) if name]
    online = [name for name, entry in settings.online_models.items() if entry.provider]
    attached = [name for name, entry in settings.workers.items() if entry.openai_server]
    return list(dict.fromkeys(named + online + attached))


def plan_models(
    settings: "Settings", names: Sequence[str] | None = None, taken_ports: Collection[int] = ()
) -> list[ModelPlan]:
    """Plan the wanted models, or exactly `names`.

    A wanted local model is left out where USE_FASTCHAT is false. Explicit ports are kept; the
    others are the next free numbers from the default entry's port (20002) up, passing over
    `taken_ports` and every port that the configuration names. Raises ConfigError for a name that
    is declared nowhere, and for a name in `names` that USE_FASTCHAT keeps from starting.
    """
    chosen = list(dict.fromkeys(wanted_models(settings) if names is None else names))
    declared = declared_models(settings)
    refused = [
        name
        for name in chosen
        if name not in declared or (names is not None and kind_of(settings, name) is None)
    ]
    if refused:
        where = "LLM_MODELs" if names is None else "models to start"
        raise ConfigError(undeclared(settings, name, (where,)) for name in refused)
    free_ports = _free_ports(settings, taken_ports)
    plans = (_plan_one(settings, name, free_ports) for name in chosen)
    return [plan for plan in plans if plan is not None]


def says_its_limit(settings: "Settings", name: str) -> bool:
    """Whether a model's own entry says how many requests run at once. What "default" says is for
    the workers that are started here."""
    own = settings.workers.get(name)
    return own is not None and "limit_worker_concurrency" in own.model_fields_set


def undeclared(settings: "Settings", name: str, path: KeyPath) -> Problem:
    """Say that `name`, found at `path`, cannot be started, and what to do about it."""
    source, key = settings.origin.source_of(path), spell(path)
    if name in declared_models(settings):
        message = f'"{name}" is a local model, and USE_FASTCHAT is false'
        return Problem("error", source, key, message, "Set USE_FASTCHAT = True")
    hint = nearest(name, declared_models(settings))
    mend = f'Did you mean "{hint}"? Else declare' if hint else "Declare"
    return Problem(
        "error",
        source,
        key,
        f'"{name}" names a model that is declared nowhere',
        f"{mend} it in llm_model_dict, VLLM_MODEL_DICT or ONLINE_LLM_MODEL",
    )


def explicit_ports(settings: "Settings") -> dict[str, int]:
    """Give the ports that belong to one server each, by the model that has it."""
    names = dict.fromkeys([*settings.workers, *settings.online_models])
    workers = {name: settings.worker(name) for name in names if name != "default"}
    return {
        name: worker.port
        for name, worker in workers.items()
        if worker.port is not None and worker.openai_server is None
    }


def _free_ports(settings: "Settings", taken_ports: Iterable[int]) -> Iterator[int]:
    taken = {settings.controller.port, settings.gateway.port, *taken_ports}
    taken.update(explicit_ports(settings).values())
    default = settings.workers.get("default")
    first = default.port if default is not None and default.port else FIRST_WORKER_PORT
    return (port for port in count(first) if port not in taken)


def _plan_one(settings: "Settings", name: str, free_ports: Iterator[int]) -> ModelPlan | None:
    kind = kind_of(settings, name)
    if kind is None:
        return None
    worker = settings.worker(name)
    if kind == "attached":
        return ModelPlan(name, kind, worker)
    own = [] if worker.port is None else [worker.port]
    ports = (*own, *(next(free_ports) for _ in range(worker.replicas - len(own))))
    worker = worker.model_copy(update={"port": ports[0]})
    if kind == "online":
        online = settings.online_models[name]
        provider = online.provider or DEFAULT_PROVIDER
        return ModelPlan(name, kind, worker, ports, online=online, provider=provider)
    local = settings.local_models.get(name)
    stored = settings.vllm_models[name] if kind == "vllm" else local and local.local_model_path
    path = resolve_model_path(stored) if stored else None
    return ModelPlan(name, kind, worker, ports, path, local=local)
