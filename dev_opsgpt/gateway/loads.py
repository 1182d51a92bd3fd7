"""Requests for models that are not loaded: they have the controller load them, and wait.

However many wait for one model, the controller is asked once at a time. That nobody waits any more
ends the asking, not the load.
"""

import asyncio
import logging
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field

from dev_opsgpt.gateway.controller_calls import ControllerCalls
from dev_opsgpt.gateway.opened import Opened
from dev_opsgpt.gateway.request import Request
from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.gateway.standings import DOUBTED, Standings
from dev_opsgpt.protocol.errors import ApiError, ModelNotFound, Overloaded, Unavailable
from dev_opsgpt.routing.cards import Standing
from dev_opsgpt.routing.fleet import Fleet

log = logging.getLogger(__name__)

# One question to the controller waits so long for the load.
PATIENCE = 10.0
# A question that failed, since the controller was away, is put again after so long.
AGAIN = 1.0
# A model that serves is in the table this soon.
SEEN_WITHIN = 5.0
LOOK = 0.05
# One that was not there so often is waited for no longer.
UNSEEN = 2
# Whether a load waits for room or goes on is looked at this often.
LOOK_AGAIN = 1.0
# A stream whose model loads quickly need not know of it, and one whose model cannot be loaded has
# a proper status: the first comment comes after so long, the others ...
FIRST_COMMENT = 1.0
# ... as often as this.
COMMENTS = 5.0


@dataclass
class _Load:
    """A load that requests wait for. ``standing`` is the controller's last word."""

    task: "asyncio.Task[None]"
    waiting: int = 0
    standing: Standing | None = None
    ends: "asyncio.Future[ApiError | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Loads:
    """Who waits for what. ``clock`` is monotonic, in seconds."""

    def __init__(
        self,
        fleet: Fleet,
        standings: Standings,
        calls: ControllerCalls,
        clock: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._calls = calls
        self._clock = clock
        self._standings = standings
        self._loads: dict[str, _Load] = {}

    def begin(self, model: str) -> None:
        """Has a model loaded for which nobody waits: somebody else answers meanwhile."""
        if model not in self._loads:
            self._join(model)

    def possible(self, model: str) -> bool:
        """Whether a request for the model may load it."""
        return self._standings.loadable(model)

    def absent(self, model: str) -> bool:
        """Whether the model is to be loaded: nobody is there who serves it, busy or broken."""
        return self._standings.loadable(model) and self._all_leave(model)

    def _all_leave(self, model: str) -> bool:
        """Whether no replica of the model is there, or none that is to stay."""
        return all(replica.row.draining for replica in self._fleet.of(model))

    async def wait(self, request: Request, model: str, route: Route) -> None:
        """Returns when the model serves. Raises ``Unavailable`` where it does not, with the reason,
        ``Overloaded`` where too many wait already."""
        load = self._loads.get(model) or self._join(model)
        if load.waiting >= max(1, route.queue_size):
            message = f"Too many requests wait for the model '{model}' to be loaded."
            raise Overloaded(message, retry_after=COMMENTS)
        began = self._clock()
        load.waiting += 1
        try:
            await self._sit(request, model, route, load, began)
        finally:
            load.waiting -= 1
            request.record.queued += self._clock() - began
            request.begun = request.elapsed()

    async def _sit(
        self, request: Request, model: str, route: Route, load: _Load, began: float
    ) -> None:
        comment = FIRST_COMMENT
        while not load.ends.done():
            waited = self._clock() - began
            # What is pushed is newer than what was answered.
            standing = self._standings.get(model) or load.standing
            left = _patience(route, standing) - waited
            if left <= 0:
                raise _late(model, standing)
            if request.usage is not None and waited >= comment:
                self._comment(request, model, standing)
                comment = waited + COMMENTS
            due = comment - waited if request.usage is not None else left
            await asyncio.wait({load.ends}, timeout=max(0.0, min(left, due, LOOK_AGAIN)))
        error = load.ends.result()
        if error is not None:
            # Each of those who wait has its own.
            raise copy(error)

    def _comment(self, request: Request, model: str, standing: Standing | None) -> None:
        opened = request.exchange
        if not isinstance(opened, Opened):
            request.record.status = 200
            request.exchange = opened = Opened(opened)
        opened.comment(_progress(model, standing))

    def _join(self, model: str) -> _Load:
        task = asyncio.create_task(self._ask(model))
        load = self._loads[model] = _Load(task)
        return load

    async def _ask(self, model: str) -> None:
        """Has the model loaded, and tells those who wait."""
        error: ApiError | None = None
        load = self._loads[model]
        try:
            error = await self._loaded(model, load)
        except Exception:
            log.exception("the load of %r cannot be followed", model)
            error = Unavailable(f"The model '{model}' cannot be loaded now.")
        finally:
            del self._loads[model]
            if not load.ends.done():
                load.ends.set_result(error)

    async def _loaded(self, model: str, load: _Load) -> ApiError | None:
        """Asks until the load has ended, or nobody waits any more; why it has failed."""
        first, away, unseen = True, 0.0, 0
        while first or load.waiting:
            first = False
            try:
                load.standing = await self._calls.load(model, PATIENCE, demanded=True)
            except ModelNotFound:
                load.standing = None
                if not self._standings.loadable(model):
                    return ModelNotFound(f"The model '{model}' does not exist.", param="model")
                await asyncio.sleep(AGAIN)
                continue
            except Unavailable as error:
                away = away or self._clock()
                if self._clock() - away > DOUBTED:
                    return error
                await asyncio.sleep(AGAIN)
                continue
            away = 0.0
            if (failed := _failed(model, load.standing)) is not None:
                return failed
            if load.standing.phase == "loaded":
                if not load.standing.loadable and self._all_leave(model):
                    # Somebody is stopping it.
                    return _nobody(model)
                if await self._seen(model):
                    return None
                # It may have been unloaded again at once.
                unseen += 1
                if unseen == UNSEEN:
                    return _nobody(model)
        return None

    async def _seen(self, model: str) -> bool:
        """Whether the table has the model, as it soon will unless somebody stops it."""
        end = self._clock() + SEEN_WITHIN
        while not self._fleet.ready(model, self._clock()):
            stopped = not self._standings.loadable(model) and self._all_leave(model)
            if stopped or self._clock() >= end:
                return False
            await asyncio.sleep(LOOK)
        return True

    def close(self) -> None:
        """Ends the asking."""
        for load in self._loads.values():
            load.task.cancel()


def _patience(route: Route, standing: Standing | None) -> float:
    """How long a request waits: for room less long than for the load itself."""
    if standing is not None and standing.phase == "waiting":
        return min(route.queue_timeout, route.load_timeout)
    return route.load_timeout


def _late(model: str, standing: Standing | None) -> Unavailable:
    if standing is not None and standing.phase == "waiting":
        message = f"The model '{model}' cannot be loaded now: {standing.message}."
        return Unavailable(message, code="no_room_for_model", retry_after=COMMENTS)
    message = f"The model '{model}' is still being loaded; try again shortly."
    return Unavailable(message, code="model_loading", retry_after=COMMENTS)


def _failed(model: str, standing: Standing) -> Unavailable | None:
    """Why a load will come to nothing, if it will."""
    if standing.phase == "failed":
        message = f"The model '{model}' could not be loaded: {standing.message.rstrip('.')}."
        return Unavailable(message, code="load_failed", retry_after=standing.retry_after)
    if standing.phase != "loaded" and not standing.loadable:
        return _nobody(model)
    return None


def _nobody(model: str) -> Unavailable:
    message = f"No worker can serve the model '{model}' now; try again shortly."
    return Unavailable(message, code="model_unavailable", retry_after=2)


def _progress(model: str, standing: Standing | None) -> str:
    """The text of a comment: ``loading tiny-chat: reading the file, 42%``."""
    text = f"loading {model}"
    if standing is None:
        return text
    what = standing.doing or standing.message
    if what:
        text += f": {what}"
    if standing.fraction is not None:
        text += f", {standing.fraction:.0%}"
    return text
