"""Finds who serves a request: replica by replica, model by model, until one answers or all have
failed. Nothing has been sent to the client as long as this goes on."""

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from random import Random
from typing import Protocol

from dev_opsgpt.gateway.attempt import Asker, Pair
from dev_opsgpt.gateway.lines import Lines
from dev_opsgpt.gateway.loads import Loads
from dev_opsgpt.gateway.request import Request
from dev_opsgpt.gateway.routes import Route, Routes
from dev_opsgpt.protocol.errors import ApiError, ModelNotFound, Overloaded, Unavailable
from dev_opsgpt.routing.capabilities import card_of, fits
from dev_opsgpt.routing.dispatch import Dispatcher
from dev_opsgpt.routing.fleet import Fleet, Replica
from dev_opsgpt.routing.retry import RetryBudget, backoff
from dev_opsgpt.transport.errors import ConnectFailed, ConnectionBroken

# Seconds after which a client may try a model again that nobody can serve now: a breaker or a
# restart takes about as long.
RETRY_AFTER = 2
# So often one request waits for models to be loaded: one may be gone again when it is asked.
MOST_LOADS = 3


class Events(Protocol):
    """Who is told of what happens on the way; metrics are."""

    def retried(self, model: str) -> None:
        """One more replica is asked."""

    def fell_back(self, model: str, to: str) -> None:
        """Another model is asked."""

    def hedged(self, model: str) -> None:
        """A second replica is asked beside the first."""

    def shed(self, model: str) -> None:
        """A request was turned away, since too many wait."""


class _Shed(Overloaded):
    """The gateway turned a request away, no worker did: others of the model will not do better."""


class Forwarder:
    """Serves requests by the fleet. ``clock`` is monotonic, in seconds."""

    def __init__(
        self,
        fleet: Fleet,
        routes: Routes,
        dispatcher: Dispatcher,
        asker: Asker,
        budget: RetryBudget,
        events: Events,
        loads: Loads,
        *,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._fleet = fleet
        self.routes = routes
        self.dispatcher = dispatcher
        self.budget = budget
        self._asker = asker
        self._events = events
        self.loads = loads
        self._clock = clock
        self._rng = rng
        self.lines = Lines(self._offer, self._leave, clock)

    def known(self, model: str) -> bool:
        """Whether somebody serves the model, or should, or it is a name for others that do."""
        now = self._clock()
        if self._fleet.ready(model, now) or self._fleet.expected(model, now):
            return True
        route = self.routes.of(model)
        stands_for_others = route is not self.routes.default and bool(route.fallbacks)
        return stands_for_others or self.loads.possible(model)

    async def serve(self, request: Request, route: Route) -> None:
        """Answers the request: by its model, whose ``route`` it is, or by one of the fallbacks
        that fit. Raises ``ApiError`` while nothing has been sent."""
        self.budget.request(self._clock())
        model, tried = request.model, request.tried
        fallbacks: list[str] | None = None
        loads = 0
        while True:
            try:
                replica = self._choose(request, model, tried)
                if replica is None:
                    replica = await self._wait(request, model, route)
                tried.append(replica)
                request.record.attempts += 1
                if route.timed:
                    await self._ask_in_time(request, model, route, tried)
                    return
                try:
                    await self._asker.ask(request, model, replica)
                    return
                finally:
                    self._leave(replica)
            except ApiError as failure:
                error: ApiError = failure
                if tried and isinstance(error, ConnectFailed | ConnectionBroken):
                    request.broken[tried[-1]] = tried[-1].row.beats
                if request.exchange.started or not _may_differ(error):
                    raise
                if self.loads.absent(model) and loads < MOST_LOADS:
                    loads += 1
                    unloaded = await self._load(request, model, route, error)
                    if unloaded is None:
                        tried = request.tried = []
                        continue
                    error = unloaded
                if self._retries(error, model, route, request):
                    self._events.retried(model)
                else:
                    if fallbacks is None:
                        fallbacks = list(route.fallbacks)
                    following = self._next(fallbacks, request)
                    if following is None:
                        raise self._final(error, request) from None
                    self._events.fell_back(model, following)
                    model, route = following, self.routes.of(following)
                    tried = request.tried = []
                    request.begun = request.elapsed()
                    continue
            await asyncio.sleep(backoff(len(tried), self._rng))
            request.begun = request.elapsed()

    async def _ask_in_time(
        self, request: Request, model: str, route: Route, tried: list[Replica]
    ) -> None:
        """Asks the last of ``tried`` where somebody waits with a watch, and perhaps one more
        replica beside it."""
        pair = Pair(tried[-1], partial(self._second, request, model), self._leave)
        try:
            await self._asker.ask_in_time(request, model, route, pair)
        finally:
            pair.close()

    async def _load(
        self, request: Request, model: str, route: Route, error: ApiError
    ) -> ApiError | None:
        """Waits until a model is loaded; why it is not where that fails. A fallback that is ready
        does not wait with it: it answers, and the model is loaded for those who come next, to whom
        the ``error`` will not happen."""
        now = self._clock()
        if model is request.model and any(self._able(request, m, now) for m in route.fallbacks):
            self.loads.begin(model)
            return error
        try:
            await self.loads.wait(request, model, route)
        except ApiError as failed:
            return failed
        return None

    async def _wait(self, request: Request, model: str, route: Route) -> Replica:
        """Waits in line for a replica."""
        began = self._clock()
        try:
            return await self.lines.wait(model, request, route.queue_size, route.queue_timeout)
        except Overloaded as error:
            self._events.shed(model)
            raise _Shed(error.message, retry_after=error.retry_after) from None
        finally:
            request.record.queued += self._clock() - began
            request.begun = request.elapsed()

    def _second(self, request: Request, model: str) -> Replica | None:
        """One more replica to be asked beside the first; None where there is none to spare, or
        more of this would be too much: it counts as a retry does."""
        now = self._clock()
        if not self.budget.allows(now):
            return None
        others = self._untried(request, self._able(request, model, now))
        # FastChat's protocol is another one: nothing is asked beside, or instead of, it.
        others = [replica for replica in others if replica.row.kind != "fastchat"]
        replica = self._pick(request, model, others, now) if others else None
        if replica is not None:
            self.budget.spend(now)
            request.tried.append(replica)
            request.record.attempts += 1
            self._events.hedged(model)
        return replica

    def _offer(self, model: str, request: Request) -> Replica | None:
        """A free replica for one who waits in line; one that has failed it already only where
        there is no other."""
        now = self._clock()
        ready = self._able(request, model, now)
        if request.tried:
            ready = self._untried(request, ready) or ready
        try:
            return self._pick(request, model, ready, now)
        except ApiError:
            # Nobody is left to wait for, as far as is known now; they may come back.
            return None

    def _choose(self, request: Request, model: str, tried: Collection[Replica]) -> Replica | None:
        """A replica, which the request counts for from now on; None where it has to wait. Raises
        ``Unavailable``, ``ModelNotFound``."""
        now = self._clock()
        if model is request.model:
            ready = self._fleet.ready(model, now)
        else:
            ready = self._able(request, model, now)
        if tried:
            ready = self._untried(request, ready)
        elif self.lines.busy and ready and self.lines.waits(model):
            return None
        return self._pick(request, model, ready, now)

    def _able(self, request: Request, model: str, now: float) -> list[Replica]:
        """The replicas of a model that may take the request: of one that it falls back to those
        only that are not known to be unable."""
        ready = self._fleet.ready(model, now)
        if model == request.model:
            return ready
        route = self.routes.of(model)
        return [one for one in ready if fits(card_of(one.row, route), request.needs)]

    def _untried(self, request: Request, ready: list[Replica]) -> list[Replica]:
        """Those that have not been asked; else those that broke off and have been heard of since,
        for that is another life of theirs."""
        untried = [replica for replica in ready if replica not in request.tried]
        if untried or not request.broken:
            return untried
        broken = request.broken
        return [r for r in ready if broken.get(r, r.row.beats) != r.row.beats]

    def _pick(
        self, request: Request, model: str, ready: list[Replica], now: float
    ) -> Replica | None:
        choose = self.dispatcher.choose
        replica = choose(model, ready, request.asked, now)
        if replica is None:
            raise self._nobody(model, now)
        if replica.in_flight >= replica.capacity:
            ready = [replica for replica in ready if replica.in_flight < replica.capacity]
            replica = choose(model, ready, request.asked, now)
            if replica is None:
                return None
        self._fleet.taken(replica, now)
        return replica

    def _leave(self, replica: Replica) -> None:
        replica.in_flight -= 1
        if self.lines.busy:
            for model in replica.row.models:
                self.lines.pump(model)

    def _nobody(self, model: str, now: float) -> ApiError:
        if self._fleet.expected(model, now):
            message = f"No worker can serve the model '{model}' now; try again shortly."
            return Unavailable(message, code="model_unavailable", retry_after=RETRY_AFTER)
        return ModelNotFound(f"The model '{model}' does not exist.", param="model")

    def _retries(self, error: ApiError, model: str, route: Route, request: Request) -> bool:
        """Whether one more replica is asked: there is one, and the budget has it. For one that
        broke off another is asked in any case: so nobody has more to do than before, and who dies
        over many requests at once has all of them done by others."""
        tried = request.tried
        if not tried or len(tried) > route.retries or isinstance(error, _Shed):
            return False
        now = self._clock()
        if not self._untried(request, self._able(request, model, now)):
            return False
        broke_off = isinstance(error, ConnectFailed | ConnectionBroken)
        return (broke_off and len(tried) == 1) or self.budget.spend(now)

    def _next(self, fallbacks: list[str], request: Request) -> str | None:
        """The next of the fallbacks that is there and able, else the next that can be loaded."""
        now = self._clock()
        others = [model for model in fallbacks if model != request.model]
        for able in (lambda model: self._able(request, model, now), self.loads.absent):
            found = next((model for model in others if able(model)), None)
            if found is not None:
                fallbacks.remove(found)
                return found
        return None

    def _final(self, error: ApiError, request: Request) -> ApiError:
        """What the client is told where nobody could serve the request. A name that stands for
        other models exists, though nobody serves it and they cannot now."""
        if isinstance(error, ModelNotFound) and self._stands_for_others(request.model):
            message = f"No model behind '{request.model}' can serve this now; try again shortly."
            return Unavailable(message, code="model_unavailable", retry_after=RETRY_AFTER)
        return error

    def _stands_for_others(self, model: str) -> bool:
        now = self._clock()
        return any(self._fleet.expected(one, now) for one in self.routes.of(model).fallbacks)


def _may_differ(error: ApiError) -> bool:
    """Whether somebody else may answer otherwise: not where the request is at fault."""
    return error.status >= 429 or error.status == ModelNotFound.status
