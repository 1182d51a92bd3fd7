"""Where requests wait while every replica of their model is busy."""

import asyncio
from collections.abc import Callable

from dev_opsgpt.gateway.request import Request
from dev_opsgpt.protocol.errors import Overloaded
from dev_opsgpt.routing.fleet import Replica
from dev_opsgpt.routing.waiting import Full, WaitingRoom

# Replicas come and breakers close without a request ending: so often it is looked.
LOOK_AGAIN = 0.25

Offer = Callable[[str, Request], Replica | None]


class _Waiter:
    __slots__ = ("future", "request")

    def __init__(self, request: Request, future: "asyncio.Future[Replica]") -> None:
        self.request = request
        self.future = future


class Lines:
    """The waiting lines, one a model. ``offer`` takes a free replica for a request, or gives None;
    ``give_back`` gets one that nobody was there to use. Whoever leaves a replica calls ``pump``."""

    def __init__(
        self, offer: Offer, give_back: Callable[[Replica], None], clock: Callable[[], float]
    ) -> None:
        self._offer = offer
        self._give_back = give_back
        self._clock = clock
        self._rooms: dict[str, WaitingRoom[_Waiter]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether somebody waits."""
        return bool(self._rooms)

    def depths(self) -> dict[str, int]:
        """How many wait for each model."""
        return {model: len(room) for model, room in self._rooms.items()}

    def waits(self, model: str) -> bool:
        """Whether somebody waits for the model."""
        return model in self._rooms

    async def wait(self, model: str, request: Request, size: int, seconds: float) -> Replica:
        """Waits for a free replica of the model. Raises ``Overloaded`` where too many wait that
        are no less important, and after so many ``seconds``."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(request, loop.create_future())
        room = self._rooms.get(model)
        if room is None:
            room = WaitingRoom(size)
        try:
            evicted = room.enter(waiter, request.priority, self._clock())
        except Full:
            raise self._refusal(model, room) from None
        self._rooms[model] = room
        if evicted is not None and not evicted.future.done():
            evicted.future.set_exception(self._refusal(model, room))
        if self._timer is None:
            self._timer = loop.call_later(LOOK_AGAIN, self._look_again)
        try:
            async with asyncio.timeout(seconds):
                return await waiter.future
        except TimeoutError:
            self._unused(waiter)
            raise self._refusal(model, room) from None
        except asyncio.CancelledError:
            self._unused(waiter)
            raise
        finally:
            self._left(model, room, waiter)

    def pump(self, model: str) -> None:
        """Lets those in who can be served now."""
        room = self._rooms.get(model)
        if room is None:
            return
        now = self._clock()
        while len(room):
            waiter = room.first()
            if waiter.future.done():
                # Cancelled a moment ago, and not gone yet.
                room.leave(waiter)
                continue
            replica = self._offer(model, waiter.request)
            if replica is None:
                return
            room.pop(now)
            waiter.future.set_result(replica)
        del self._rooms[model]

    def _unused(self, waiter: _Waiter) -> None:
        """A waiter that gives up may have been given a replica in the same moment."""
        future = waiter.future
        if future.done() and not future.cancelled() and future.exception() is None:
            self._give_back(future.result())

    def _left(self, model: str, room: WaitingRoom[_Waiter], waiter: _Waiter) -> None:
        room.leave(waiter)
        if not len(room) and self._rooms.get(model) is room:
            del self._rooms[model]

    def _look_again(self) -> None:
        self._timer = None
        for model in list(self._rooms):
            self.pump(model)
        if self._rooms:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LOOK_AGAIN, self._look_again)

    def _refusal(self, model: str, room: WaitingRoom[_Waiter]) -> Overloaded:
        seconds = room.retry_after(self._clock())
        message = f"Too many requests wait for the model '{model}'; try again shortly."
        return Overloaded(message, retry_after=seconds)
