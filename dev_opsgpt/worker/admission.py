"""Who may run now: a bounded number of requests at work, a bounded queue, a limit to patience."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dev_opsgpt.protocol.errors import Overloaded, Unavailable


class Admission:
    """At most ``limit`` requests run; ``queue_size`` more wait, each ``queue_timeout`` seconds at
    most, first come first served. ``taken`` counts those that have come to run."""

    def __init__(self, limit: int, queue_size: int = 64, queue_timeout: float = 60.0) -> None:
        self.limit = limit
        self.running = 0
        self.taken = 0
        self._queue_size = queue_size
        self._queue_timeout = queue_timeout
        self._queue: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def queue_length(self) -> int:
        """FastChat's measure of load: those at work and those that wait."""
        return self.running + self.waiting

    @property
    def share(self) -> int:
        """How many sequences of one request may be at work at once: about half of the limit, so
        that the others get on."""
        return (self.limit + 1) // 2

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds a slot. Raises ``Overloaded`` when the queue is full or the wait was too long,
        ``Unavailable`` when the worker is closing."""
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    async def _acquire(self) -> None:
        if self._closed:
            raise Unavailable("This worker is stopping.", code="draining", retry_after=1)
        if self.running < self.limit and not self._queue:
            self._take()
            return
        if len(self._queue) >= self._queue_size:
            raise Overloaded("The model's queue is full; try again later.", retry_after=1)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self._queue_timeout):
                await turn
        except TimeoutError:
            self._leave(turn)
            seconds = round(self._queue_timeout)
            message = f"The request waited {seconds} s for its turn; try again later."
            raise Overloaded(message, retry_after=self._queue_timeout / 4) from None
        except BaseException:
            self._leave(turn)
            raise

    def _leave(self, turn: asyncio.Future[None]) -> None:
        """Takes a waiter that gave up out of the queue; one whose turn had just come passes it
        on."""
        if turn.done() and not turn.cancelled():
            self._release()
        elif turn in self._queue:
            self._queue.remove(turn)

    def _take(self) -> None:
        self.running += 1
        self.taken += 1
        self._idle.clear()

    def _release(self) -> None:
        self.running -= 1
        while self._queue and self.running < self.limit:
            turn = self._queue.popleft()
            if not turn.done():
                self._take()
                turn.set_result(None)
        if not self.running:
            self._idle.set()

    def close(self) -> None:
        """Lets nobody in any more; those who wait or run go on."""
        self._closed = True

    async def drained(self, timeout: float) -> bool:
        """Waits until nobody runs or waits, ``timeout`` seconds at most; says whether it came
        so."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
