"""What differs between two configurations, and what follows from each difference. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum, auto
from typing import Any

from pydantic import BaseModel

from dev_opsgpt.config.models import Section
from dev_opsgpt.config.plan import (
    kind_of,
    loadable_models,
    says_its_limit,
    startable_models,
    wanted_models,
)
from dev_opsgpt.config.problems import KeyPath, spell
from dev_opsgpt.config.settings import Settings


class Effect(Enum):
    """How a changed key takes effect while the service runs."""

    MODELS = auto()
    """By models that start, leave or are replaced."""
    IN_PLACE = auto()
    """At once, in the processes that run."""
    NEW_GATEWAYS = auto()
    """By new gateway processes, which take over from the old ones."""
    COUNT = auto()
    """By gateway processes that start, or by fewer new ones that take over."""
    HANDED_DOWN = auto()
    """Not by itself: other keys take their value from it."""
    RESTART = auto()
    """At the next start."""


EFFECTS: Mapping[KeyPath, Effect] = {
    ("LLM_MODEL",): Effect.MODELS,
    ("LLM_MODELs",): Effect.MODELS,
    ("LLM_DEVICE",): Effect.HANDED_DOWN,
    ("USE_FASTCHAT",): Effect.MODELS,
    ("llm_model_dict",): Effect.MODELS,
    ("VLLM_MODEL_DICT",): Effect.MODELS,
    ("ONLINE_LLM_MODEL",): Effect.MODELS,
    ("DEFAULT_BIND_HOST",): Effect.HANDED_DOWN,
    ("FSCHAT_MODEL_WORKERS",): Effect.MODELS,
    ("CLUSTER_SECRET",): Effect.RESTART,
    ("DATABASE_URL",): Effect.NEW_GATEWAYS,
    ("REDIS_URL",): Effect.NEW_GATEWAYS,
    ("DATA_DIR",): Effect.RESTART,
    ("LOG_DIR",): Effect.RESTART,
    ("MAX_LOADED_MODELS",): Effect.IN_PLACE,
    ("MAX_LOADED_MEMORY",): Effect.IN_PLACE,
    ("MAX_LOADED_GPU_MEMORY",): Effect.IN_PLACE,
    ("DRAIN_TIMEOUT",): Effect.IN_PLACE,
    ("FSCHAT_CONTROLLER", "host"): Effect.RESTART,
    ("FSCHAT_CONTROLLER", "port"): Effect.RESTART,
    ("FSCHAT_CONTROLLER", "advertise_host"): Effect.RESTART,
    ("FSCHAT_CONTROLLER", "dispatch_method"): Effect.IN_PLACE,
    ("FSCHAT_CONTROLLER", "fastchat_workers"): Effect.IN_PLACE,
    ("FSCHAT_CONTROLLER", "fastchat_clients"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "host"): Effect.NEW_GATEWAYS,
    ("FSCHAT_OPENAI_API", "port"): Effect.NEW_GATEWAYS,
    ("FSCHAT_OPENAI_API", "api_keys"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "max_body_size"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "connect_timeout"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "read_timeout"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "retries"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "retry_budget"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "routes"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "breaker"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "gateway_workers"): Effect.COUNT,
    ("FSCHAT_OPENAI_API", "admin_keys"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "usage"): Effect.NEW_GATEWAYS,
    ("FSCHAT_OPENAI_API", "usage_days"): Effect.NEW_GATEWAYS,
    ("FSCHAT_OPENAI_API", "access_log"): Effect.NEW_GATEWAYS,
    ("FSCHAT_OPENAI_API", "log_format"): Effect.NEW_GATEWAYS,
    ("FSCHAT_OPENAI_API", "otlp_endpoint"): Effect.NEW_GATEWAYS,
    ("FSCHAT_OPENAI_API", "llm_base_url"): Effect.IN_PLACE,
    ("FSCHAT_OPENAI_API", "controller_address"): Effect.RESTART,
}
"""What a change of each key leads to; the keys are those of the files."""

# What clients are told, and what `Settings.worker` adds to the worker's own.
_NOT_THE_ENGINES = {"api_base_url", "api_key", "default_params"}
# What tells how many there are, and when.
_NOT_THE_WORKERS = {"replicas", "load_on_demand", "keep_alive", "gpu_memory"}


@dataclass(frozen=True)
class Changes:
    """The differences, true where there is any. Models by name, other keys as Python writes them.

    ``added`` models shall run and did not have to, ``removed`` ones the other way round or they
    are declared no more. ``changed`` models run otherwise than before, where they run, ``scaled``
    ones only with more or fewer replicas. ``offered`` may be loaded by a request, or are kept
    loaded, by other rules than before. ``attached`` are those whose server came, went or is
    used otherwise. ``new_gateways`` and ``count`` tell whether gateways are replaced, or become
    more or fewer.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    attached: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()
    new_gateways: tuple[str, ...] = ()
    count: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


def changes(old: Settings, new: Settings, models: Sequence[str] | None = None) -> Changes:
    """Compare two configurations; `models`: those that shall run, where not what they say."""
    by_effect: dict[Effect, list[str]] = {effect: [] for effect in Effect}
    for path in _different(old, new):
        by_effect[EFFECTS[path]].append(spell(path))
    before, after = _to_start(old, models), _to_start(new, models)
    known, startable = startable_models(old), startable_models(new)
    removed = [name for name in before if name not in after]
    removed += [name for name in known if name not in (*before, *startable)]
    both = [name for name in startable if name in known and name not in removed]
    changed = [name for name in both if _identity(old, name) != _identity(new, name)]
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(removed),
        changed=tuple(changed),
        scaled=tuple(
            name
            for name in both
            if name not in changed and old.worker(name).replicas != new.worker(name).replicas
        ),
        offered=tuple(
            name
            for name in startable
            if (name in before or name not in after) and _offer(old, name) != _offer(new, name)
        ),
        attached=_attached(old, new),
        in_place=tuple(by_effect[Effect.IN_PLACE]),
        new_gateways=tuple(by_effect[Effect.NEW_GATEWAYS]),
        count=tuple(by_effect[Effect.COUNT]),
        restart=tuple(by_effect[Effect.RESTART]),
    )


def held(old: Settings, new: Settings) -> Settings:
    """The new settings, but for what cannot change while the service runs: that is as it was."""

    def hold(before: BaseModel, after: BaseModel, path: KeyPath) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, key in _keys(before):
            was, is_now = getattr(before, name), getattr(after, name)
            if EFFECTS.get((*path, key)) is Effect.RESTART:
                kept[name] = was
            elif (*path, key) not in EFFECTS:
                kept[name] = is_now.model_copy(update=hold(was, is_now, (*path, key)))
        return kept

    return new.model_copy(update=hold(old, new, ()))


def _keys(section: BaseModel) -> Iterator[tuple[str, str]]:
    """Attribute and key of each field."""
    for name, field in type(section).model_fields.items():
        yield name, field.alias or name


def _different(old: BaseModel, new: BaseModel, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The classified keys whose values differ."""
    for name, key in _keys(old):
        was, is_now = getattr(old, name), getattr(new, name)
        if was == is_now:
            continue
        if (*path, key) not in EFFECTS and isinstance(was, Section):
            yield from _different(was, is_now, (*path, key))
        else:
            yield (*path, key)


def _to_start(settings: Settings, models: Sequence[str] | None) -> list[str]:
    names = wanted_models(settings) if models is None else models
    return [name for name in names if kind_of(settings, name) not in (None, "attached")]


def _identity(settings: Settings, name: str) -> tuple[Any, ...]:
    """Everything that a worker of this model was started with; two of them that are equal run
    alike. Ports that are given out count for nothing, the model's own does."""
    kind = kind_of(settings, name)
    local, online = settings.local_models.get(name), settings.online_models.get(name)
    entry: Any = None
    if kind == "online" and online is not None:
        entry = {key: value for key, value in online.plain().items() if key != "replicas"}
    elif kind == "vllm":
        entry = settings.vllm_models[name]
    elif local is not None:
        entry = local.model_dump(exclude=_NOT_THE_ENGINES)
    return (
        kind,
        entry,
        settings.worker(name).model_dump(exclude=_NOT_THE_WORKERS),
        # Workers read these two as well.
        settings.gateway.max_body_size,
        settings.controller.fastchat_clients,
    )


def _offer(settings: Settings, name: str) -> tuple[Any, ...] | None:
    """By what rules a local model is loaded and kept; None for one that is not there."""
    if name not in loadable_models(settings):
        return None
    worker = settings.worker(name)
    return worker.keep_alive, worker.gpu_memory


def _attached(old: Settings, new: Settings) -> tuple[str, ...]:
    """The models of attached servers that are not the same in both."""
    names = dict.fromkeys([*old.workers, *new.workers])
    return tuple(name for name in names if _server(old, name) != _server(new, name))


def _server(settings: Settings, name: str) -> tuple[Any, ...] | None:
    if kind_of(settings, name) != "attached":
        return None
    worker = settings.worker(name)
    return (
        worker.openai_server,
        worker.upstream_model,
        worker.api_key,
        worker.model_names,
        worker.limit_worker_concurrency,
        says_its_limit(settings, name),
    )
