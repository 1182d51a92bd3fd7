"""The admin API of models: where they stand; loaded, unloaded, more or fewer replicas of them."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from dev_opsgpt.gateway.admin import ERRORS, Allowed, guarded_by
from dev_opsgpt.gateway.admin_models import ModelName
from dev_opsgpt.gateway.controller_calls import ControllerCalls, Told
from dev_opsgpt.protocol.errors import Conflict, ModelNotFound
from dev_opsgpt.routing.cards import Phase, Standing

# What an unload may take: the drain of its answers in flight, and then some.
PATIENCE = 600.0


class ModelProgress(BaseModel):
    """How far a load has come."""

    phase: str
    """What the engine is at."""
    fraction: float | None
    """How much of that is done, between 0 and 1; null where it cannot be told."""
    seconds: float | None
    """Since the process was started."""


class ModelState(BaseModel):
    """A local model of some launcher."""

    name: str
    """As the configuration calls it."""
    names: list[str]
    """As clients do."""
    state: Phase
    on_demand: bool
    """Whether a request loads it."""
    replicas: int
    """Those that serve."""
    memory: int | None
    """Bytes that their processes have; null until they have told."""
    launchers: list[str]
    """Where it is, or comes to be."""
    progress: ModelProgress | None
    message: str
    """Why it waits, or has failed."""
    retry_after: float | None
    """Seconds until a request may try again what has failed."""


class ModelStates(BaseModel):
    """All of them."""

    object: str = "list"
    data: list[ModelState]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    model: ModelName
    """The model, as the configuration or as clients call it."""


class LoadModel(_Body):
    """What is to be loaded."""

    seconds: Annotated[float, Field(ge=0, le=60)] = 0.0
    """How long to wait for it; 0: not at all."""


class UnloadModel(_Body):
    """What is to be unloaded."""


class ScaleModel(_Body):
    """How many replicas there shall be."""

    replicas: Annotated[int, Field(ge=1, le=1024)]


class ModelAdmin:
    """What the routes do, by the controller."""

    def __init__(self, calls: ControllerCalls) -> None:
        self._calls = calls

    async def list(self, name: str | None) -> ModelStates:
        """Where all models stand, or one. Raises ``ModelNotFound``."""
        found = await self._calls.models()
        if name is not None:
            found = [_named(found, name)]
        return ModelStates(data=[_shown(standing) for standing in found])

    async def _get(self, name: str) -> ModelState:
        return _shown(_named(await self._calls.models(), name))

    async def load(self, name: str, seconds: float) -> ModelState:
        """Has one loaded, and stay. Raises ``ModelNotFound``."""
        return _shown(await self._calls.load(name, seconds, demanded=False))

    async def unload(self, name: str) -> ModelState:
        """Has one leave. Raises ``ModelNotFound``, ``Conflict``."""
        await self._get(name)
        _check(await self._calls.unload(name, PATIENCE))
        return await self._get(name)

    async def scale(self, name: str, replicas: int) -> ModelState:
        """Has one served by so many replicas. Raises ``ModelNotFound``, ``Conflict``."""
        await self._get(name)
        _check(await self._calls.scale(name, replicas, PATIENCE))
        return await self._get(name)


def create_model_admin(admin: ModelAdmin, allowed: Allowed) -> APIRouter:
    """The routes below ``/admin/models``; ``allowed`` tells whether a token is an admin key."""
    router = APIRouter(
        prefix="/admin/models", tags=["admin"], route_class=guarded_by(allowed), responses=ERRORS
    )

    @router.get("")
    async def list_local_models(
        model: Annotated[str | None, Query(max_length=500, description="Only this one.")] = None,
    ) -> ModelStates:
        """The local models that can be loaded, and where each stands."""
        return await admin.list(model)

    @router.post("/load")
    async def load_model(body: LoadModel) -> ModelState:
        """Loads a model, which then stays. Unless it is waited for, ask where it stands."""
        return await admin.load(body.model, body.seconds)

    @router.post("/unload")
    async def unload_model(body: UnloadModel) -> ModelState:
        """Unloads a model, when its answers in flight are over, until it is needed again."""
        return await admin.unload(body.model)

    @router.post("/scale")
    async def scale_model(body: ScaleModel) -> ModelState:
        """Starts or stops replicas of a model until there are so many."""
        return await admin.scale(body.model, body.replicas)

    return router


def _named(found: Sequence[Standing], name: str) -> Standing:
    """The model that the configuration calls so, else one that clients do."""
    for standing in sorted(found, key=lambda one: one.name != name):
        if name in (standing.name, *standing.names):
            return standing
    raise ModelNotFound(f"No launcher knows a local model '{name}'.", param="model")


def _check(told: Told) -> None:
    if told.code != 200:
        raise Conflict(told.msg)


def _shown(standing: Standing) -> ModelState:
    progress = None
    if standing.phase == "loading":
        doing = standing.doing or "starting"
        progress = ModelProgress(phase=doing, fraction=standing.fraction, seconds=standing.seconds)
    return ModelState(
        name=standing.name,
        names=list(standing.names),
        state=standing.phase,
        on_demand=standing.loadable,
        replicas=standing.replicas,
        memory=standing.memory,
        launchers=list(standing.launchers),
        progress=progress,
        message=standing.message,
        retry_after=standing.retry_after,
    )
