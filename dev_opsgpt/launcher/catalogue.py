"""What a launcher tells the controller: the models that it can load, how much of them, and what
has become of those that it has loaded."""

import time
from collections.abc import Collection
from pathlib import Path

from dev_opsgpt.config import ModelPlan, Settings, resolve_model_path
from dev_opsgpt.config.plan import kind_of
from dev_opsgpt.config.sizes import bytes_of
from dev_opsgpt.launcher.plan import engine_of
from dev_opsgpt.launcher.unit import Part as UnitPart
from dev_opsgpt.launcher.unit import State, Unit
from dev_opsgpt.launcher.units import ENDED, Units
from dev_opsgpt.routing.cards import Bounds, Card, Part

KEEP_ALIVE = 300.0
"""Seconds for which a model stays that a request has loaded, where nothing else is said."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "*.pt")


def cards(settings: Settings, *, on_demand: bool = True) -> list[Card]:
    """A card for each local model that can be started here; without ``on_demand`` no request loads
    any."""
    loadable = settings.loadable_models() if on_demand else []
    return [
        _card(settings, name, name in loadable)
        for name in settings.startable_models()
        if kind_of(settings, name) in ("local", "vllm")
    ]


def bounds(settings: Settings) -> Bounds:
    """How much of them may be loaded at a time."""
    sizes = (settings.max_loaded_memory, settings.max_loaded_gpu_memory)
    memory, gpu = (None if size is None else bytes_of(size) for size in sizes)
    return Bounds(settings.max_loaded_models, memory, gpu)


def _card(settings: Settings, name: str, loadable: bool) -> Card:
    plan = settings.plan_for(name)
    own = settings.workers.get(name)
    keep = plan.worker.keep_alive
    keep = KEEP_ALIVE if keep is None else keep
    size = size_of(plan)
    gpu = gpu_size_of(plan, size) if settings.max_loaded_gpu_memory is not None else 0
    return Card(
        name=name,
        names=plan.served_names,
        on_demand=loadable,
        keep_alive=keep if keep >= 0 else None,
        stays=own is None or own.keep_alive is None,
        replicas=plan.worker.replicas,
        # What is on a GPU is not in the machine's memory too; what its process has comes out.
        size=0 if gpu else size,
        gpu=gpu,
    )


def size_of(plan: ModelPlan) -> int:
    """The bytes of a model's weights on the disk, its projector's too; 0 where they are not there
    (yet)."""
    local = plan.local
    projector = local.mmproj_path if local is not None and local.model_type == "VL" else None
    beside = 0 if projector is None else _size_at(resolve_model_path(projector))
    return _size_at(plan.path) + beside


def _size_at(path: Path | str | None) -> int:
    if not isinstance(path, Path):
        return 0
    try:
        if not path.is_dir():
            return path.stat().st_size
        # A folder may hold the same weights in several forms: the engine reads one of them.
        sizes = (sum(f.stat().st_size for f in path.glob(form)) for form in _WEIGHTS)
        return next((size for size in sizes if size), 0)
    except OSError:
        return 0


def gpu_size_of(plan: ModelPlan, size: int) -> int:
    """The bytes of the GPUs that a replica takes: as its entry says, else its weights' where it is
    not told to run on the CPU. llama.cpp computes there."""
    if plan.worker.gpu_memory is not None:
        return bytes_of(plan.worker.gpu_memory)
    return 0 if plan.worker.device == "cpu" or engine_of(plan) == "llama_cpp" else size


def parts(units: Units, demanded: Collection[str], working: Collection[str]) -> list[Part]:
    """Every replica that is there or is to come. ``demanded`` models were loaded by a request;
    what is ``working`` is being started, whether or not there is a process yet."""
    found = [
        _part(unit, part, demanded)
        for unit in units.of("engine")
        for part in unit.parts.values()
        if part.worker is not None and part.state not in ENDED
    ]
    there = {part.model for part in found}
    coming = [Part(model=name, address="", state="starting") for name in working]
    return [*found, *(part for part in coming if part.model not in there)]


def failures(units: Units) -> dict[str, str]:
    """Why models do not run that were started, in one line each, as far as something is left of
    them."""
    found = [
        (part.worker.model, part.message)
        for unit in units.of("engine")
        for part in unit.parts.values()
        if part.worker is not None and part.state is State.FAILED and part.message
    ]
    return dict(found)


def _part(unit: Unit, part: UnitPart, demanded: Collection[str]) -> Part:
    assert part.worker is not None  # noqa: S101 - for the type checker
    model = part.worker.model
    states = {State.READY: "ready", State.RESTARTING: "restarting"}
    state = states.get(part.state, "starting")
    if part.leaving or unit.leaving:
        state = "leaving"
    loads = state == "starting"
    return Part(
        model=model,
        address=part.address or part.worker.address,
        state=state,  # type: ignore[arg-type]
        doing=part.doing if loads else "",
        fraction=part.fraction if loads else None,
        seconds=round(time.monotonic() - unit.started, 1),
        demanded=model in demanded,
        died=part.died if state == "restarting" else "",
        deaths=unit.deaths if state == "restarting" else 0,
    )
