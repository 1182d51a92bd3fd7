"""One replica is asked: its answer is passed on, or it is found out why it cannot be."""

import asyncio
from collections.abc import Callable

import msgspec

from dev_opsgpt.gateway.fastchat_worker import FastChatWorkers
from dev_opsgpt.gateway.peek import with_field
from dev_opsgpt.gateway.relay import Refused, Sender, StreamBroken, relay, relay_whole
from dev_opsgpt.gateway.request import Request
from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.gateway.upstreams import Upstreams, takes_own_key
from dev_opsgpt.protocol.errors import ApiError, InternalError, UpstreamFailed, UpstreamTimeout
from dev_opsgpt.routing.fleet import Fleet, Replica
from dev_opsgpt.transport.errors import ConnectFailed
from dev_opsgpt.transport.response import Response

# Answers that say "not here, not now": another replica may do better. 404 is a model that has
# just been released.
ELSEWHERE = frozenset({404, 429, *range(500, 600)})
# Of these, the ones by which a replica shows that something is wrong with it. Whatever a client
# does wrong never counts against a replica: others would have to go without it. 529 is what some
# providers answer when they are busy.
FAILURES = frozenset(range(500, 600)) - {501, 503, 505, 529}
# Statuses that are no answer to a generation, or not one for its client.
_NO_ANSWERS = frozenset({204, 301, 302, 303, 304, 307, 308, 401, 403})
_FAULTS = (UpstreamFailed, UpstreamTimeout, InternalError)


Begun = tuple[Response, bytes]
"""An answer's head and its first bytes."""


class FirstTokenTimeout(UpstreamTimeout):
    """The first byte of the answer did not come in the time that the model's route gives."""


class Pair:
    """The replicas that are asked at the same time: one, or two where a ``second`` is asked beside
    the ``first``. ``take`` gives that one, if it can be spared, ``leave`` gets both back."""

    __slots__ = ("_held", "_leave", "_take", "first")

    def __init__(
        self,
        first: Replica,
        take: Callable[[], Replica | None],
        leave: Callable[[Replica], None],
    ) -> None:
        self.first = first
        self._take = take
        self._leave = leave
        self._held = [first]

    def second(self) -> Replica | None:
        """One more replica; None where there is none to spare."""
        replica = self._take()
        if replica is not None:
            self._held.append(replica)
        return replica

    def let_go(self, replica: Replica) -> None:
        """One of them works for the request no more."""
        self._held.remove(replica)
        self._leave(replica)

    def close(self) -> None:
        """The request is over."""
        for replica in self._held:
            self._leave(replica)


class Asker:
    """Asks replicas, and tells the fleet how they did. ``clock`` is monotonic, in seconds."""

    def __init__(
        self,
        fleet: Fleet,
        upstreams: Upstreams,
        fastchat: FastChatWorkers,
        clock: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._upstreams = upstreams
        self._fastchat = fastchat
        self._clock = clock

    async def ask(self, request: Request, model: str, replica: Replica) -> None:
        """Has the replica answer the request.

        Raises ``ApiError`` while nothing has been sent; ``Refused`` holds an answer that another
        replica may better.
        """
        try:
            if replica.row.kind == "fastchat":
                await self._ask_fastchat(request, model, replica)
            else:
                response = await self._upstreams.send(replica, request, model)
                try:
                    await self._pass_on(request, model, replica, response)
                finally:
                    response.close()
        except (ApiError, StreamBroken) as error:
            self._failed(request, replica, error)
        else:
            self._succeeded(request, replica)

    async def ask_in_time(self, request: Request, model: str, route: Route, pair: Pair) -> None:
        """The same where somebody waits for the first byte with a watch."""
        replica = pair.first
        seconds = route.first_token_timeout if request.usage is not None else None
        try:
            async with asyncio.timeout(seconds) as timeout:
                if replica.row.kind == "fastchat":
                    await self._ask_fastchat(request, model, replica, timeout)
                else:
                    replica, answer = await self._first(request, model, route, pair)
                    response, first = answer.result()
                    try:
                        await self._pass_on(request, model, replica, response, first, timeout)
                    finally:
                        response.close()
        except TimeoutError:
            message = f"The model's worker sent nothing within {seconds:g} seconds."
            error = FirstTokenTimeout(message, code="first_token_timeout")
            self._failed(request, replica, error)
        except (ApiError, StreamBroken) as error:
            self._failed(request, replica, error)
        else:
            self._succeeded(request, replica)

    async def _pass_on(
        self,
        request: Request,
        model: str,
        replica: Replica,
        response: Response,
        first: bytes = b"",
        timeout: asyncio.Timeout | None = None,
    ) -> None:
        status = response.status
        if status in ELSEWHERE:
            raise await Refused.of(response)
        if status in _NO_ANSWERS:
            _check(status, request, replica)
        first = first or response.taken() or await response.next()
        if timeout is not None:
            timeout.reschedule(None)
        request.record.first_token = elapsed = request.elapsed()
        replica.answered_after(elapsed - request.begun)
        _serves(request, model, replica)
        if not relay_whole(request, response, first):
            await relay(request, response, first)

    def _failed(self, request: Request, replica: Replica, error: Exception) -> None:
        """Raises the error again, unless the client has been told of it."""
        broken = isinstance(error, StreamBroken)
        cause = error.error if isinstance(error, StreamBroken) else error
        assert isinstance(cause, ApiError)  # noqa: S101 - for the type checker
        self._blame(replica, cause)
        if request.trace is not None:
            status = cause.status if isinstance(cause, Refused) else None
            request.trace.attempted(replica.row.address, status, cause.code)
        if not broken:
            raise error

    def _succeeded(self, request: Request, replica: Replica) -> None:
        self._fleet.succeeded(replica, self._clock())
        if request.trace is not None:
            request.trace.attempted(replica.row.address, request.record.status)

    async def _ask_fastchat(
        self,
        request: Request,
        model: str,
        replica: Replica,
        timeout: asyncio.Timeout | None = None,
    ) -> None:
        _serves(request, model, replica)
        body = request.body
        if model != request.model:
            body = with_field(body, "model", msgspec.json.encode(model))
        sender = Sender(request, timeout)
        await self._fastchat.answer(replica.row, request.path, body, sender)
        sender.check()

    async def _begin(self, request: Request, model: str, replica: Replica) -> Begun:
        """The head of a replica's answer, and its first bytes."""
        response = await self._upstreams.send(replica, request, model)
        try:
            first = b"" if response.status in ELSEWHERE else await response.next()
        except BaseException:
            response.close()
            raise
        return response, first

    async def _first(
        self, request: Request, model: str, route: Route, pair: Pair
    ) -> tuple[Replica, "asyncio.Task[Begun]"]:
        """The replica that answers first, and its answer, or its failure where there is no other.
        One that was asked too is let go."""

        def begin(replica: Replica) -> "asyncio.Task[Begun]":
            return asyncio.ensure_future(self._begin(request, model, replica))

        asked = {begin(pair.first): pair.first}
        began = 0.0
        try:
            done, _ = await asyncio.wait(asked, timeout=route.hedge_after)
            if not done and (other := pair.second()) is not None:
                began = request.elapsed()
                asked[begin(other)] = other
            while True:
                done, waits = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                good = next((task for task in done if _is_good(task)), None)
                chosen = good if good is not None or waits else next(iter(done))
                if chosen is not None:
                    replica = asked.pop(chosen)
                    request.begun = request.begun if replica is pair.first else began
                    return replica, chosen
                for task in done:
                    replica = asked.pop(task)
                    self._drop(replica, task)
                    pair.let_go(replica)
        finally:
            for task, replica in asked.items():
                if task.done():
                    self._drop(replica, task)
                else:
                    task.add_done_callback(_close)
                    task.cancel()
                pair.let_go(replica)

    def _drop(self, replica: Replica, task: "asyncio.Task[Begun]") -> None:
        """One of two is not needed: it has failed, or answered second."""
        error = task.exception()
        if isinstance(error, ApiError):
            self._blame(replica, error)
        elif error is None and task.result()[0].status in FAILURES:
            self._fleet.failed(replica, self._clock())
        _close(task)

    def _blame(self, replica: Replica, error: ApiError) -> None:
        """Counts a failure against the replica, if it is its own. One that cannot be reached is
        passed over for a while; one that broke off, or was slow, may be well for others."""
        now = self._clock()
        if isinstance(error, Refused):
            at_fault = error.status in FAILURES
        else:
            at_fault = isinstance(error, _FAULTS)
        if at_fault:
            self._fleet.failed(replica, now)
        elif not replica.breaker.is_closed:
            self._fleet.succeeded(replica, now)
        if isinstance(error, ConnectFailed):
            self._fleet.down(replica, now)


def _check(status: int, request: Request, replica: Replica) -> None:
    """Raises ``UpstreamFailed`` for one of ``_NO_ANSWERS``, unless the client's own key is
    refused."""
    if status not in (401, 403):
        message = f"The model's server answered with {status}, which is no answer."
        raise UpstreamFailed(message, code="upstream_bad_response")
    if not _sends_own_key(request, replica):
        message = "The model's server refused the gateway's credential."
        raise UpstreamFailed(message, code="upstream_auth_failed")


def _sends_own_key(request: Request, replica: Replica) -> bool:
    """Whether the replica asks its provider with the client's own key: then it is the client whom
    a 401 is for, and no fault of the replica."""
    return request.caller.own_key is not None and takes_own_key(replica.row)


def _serves(request: Request, model: str, replica: Replica) -> None:
    request.record.served = model
    request.record.replica = replica.row.address


def _is_good(task: "asyncio.Task[Begun]") -> bool:
    return task.exception() is None and task.result()[0].status not in ELSEWHERE


def _close(task: "asyncio.Task[Begun]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result()[0].close()
