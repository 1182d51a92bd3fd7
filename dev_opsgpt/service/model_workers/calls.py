"""Calls a provider's method, whatever kind of function it is, and gives what it gives.

Plain functions and generators run in threads, one a call, so that a provider that blocks holds
nobody up. The threads are daemons: one that hangs for ever does not keep the process from ending.
"""

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from dev_opsgpt.protocol.errors import Overloaded, UpstreamTimeout

# Items that a generator may be ahead of its reader.
AHEAD = 16
# Seconds to wait for a thread when all are held by calls that nobody waits for any more.
PATIENCE = 5.0
_END: Any = object()


class Calls:
    """Calls methods, at most ``limit`` of them in threads; ``timeout`` is how many seconds each
    may be silent."""

    def __init__(self, limit: int, timeout: float) -> None:
        self._limit = limit
        self._timeout = timeout
        self._threads = asyncio.Semaphore(limit)
        self._abandoned = 0

    async def items(self, method: Callable[[Any], Any], params: Any) -> AsyncGenerator[Any, None]:
        """What ``method(params)`` returns, or all that it yields.

        Closing this generator stops the method: it is asked for no more, and closed. Raises what
        the method raises, ``UpstreamTimeout`` when it is silent for too long, ``Overloaded`` when
        calls that do not return hold all threads.
        """
        async with aclosing(self._source(method, params)) as source:
            while True:
                try:
                    async with asyncio.timeout(self._timeout):
                        item = await anext(source, _END)
                except TimeoutError:
                    raise UpstreamTimeout("The provider did not answer in time.") from None
                if item is _END:
                    return
                yield item

    def _source(self, method: Callable[[Any], Any], params: Any) -> AsyncGenerator[Any, None]:
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            return self._in_loop(method(params))
        return self._in_thread(method, params)

    async def _in_loop(self, result: Any) -> AsyncGenerator[Any, None]:
        if inspect.isawaitable(result):
            result = await result
        if hasattr(result, "__next__"):
            # An iterator that a coroutine returned may block like any other.
            async with aclosing(self._in_thread(lambda _: result, None)) as items:
                async for item in items:
                    yield item
        elif not hasattr(result, "__aiter__"):
            yield result
        else:
            try:
                async for item in result:
                    yield item
            finally:
                if hasattr(result, "aclose"):
                    await result.aclose()

    async def _in_thread(
        self, method: Callable[[Any], Any], params: Any
    ) -> AsyncGenerator[Any, None]:
        await self._thread_is_free()
        pull = _Pull(method, params, self._ended)
        pull.start()
        try:
            while (item := await pull.items.get()) is not _END:
                if isinstance(item, _Failure):
                    raise item.error
                if isinstance(item, _Handover):
                    async with aclosing(self._in_loop(item.result)) as items:
                        async for inner in items:
                            yield inner
                else:
                    pull.room.release()
                    yield item
        finally:
            if pull.leave():
                self._abandoned += 1

    async def _thread_is_free(self) -> None:
        if self._abandoned < self._limit:
            await self._threads.acquire()
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await self._threads.acquire()
        except TimeoutError:
            message = "Earlier calls of the provider do not return; try again later."
            raise Overloaded(message, retry_after=PATIENCE) from None

    def _ended(self, pull: "_Pull") -> None:
        self._threads.release()
        self._abandoned -= pull.left
        pull.ended = True


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Handover:
    """A plain function turned out to return something for the event loop."""

    def __init__(self, result: Any) -> None:
        self.result = result


class _Pull:
    """One call in a thread of its own. ``items`` and all but ``run`` belong to the loop."""

    def __init__(
        self, method: Callable[[Any], Any], params: Any, on_end: Callable[["_Pull"], None]
    ) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.room = threading.Semaphore(AHEAD)
        self.left = self.ended = False
        self._method = method
        self._params = params
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(self._run,), name="provider-call", daemon=True
        ).start()

    def leave(self) -> bool:
        """Nobody wants more; tells whether the thread is still at work."""
        if not self.ended:
            self.left = True
            self.room.release()
        return self.left

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._tell(self.items.put_nowait, _Failure(error))
        else:
            self._tell(self.items.put_nowait, _END)
        finally:
            self._tell(self._on_end, self)

    def _work(self) -> None:
        result = self._method(self._params)
        if inspect.isawaitable(result) or hasattr(result, "__aiter__"):
            self._tell(self.items.put_nowait, _Handover(result))
        elif not hasattr(result, "__next__"):
            self._tell(self.items.put_nowait, result)
        else:
            try:
                self._pull(result)
            finally:
                if hasattr(result, "close"):
                    result.close()

    def _pull(self, result: Any) -> None:
        while True:
            self.room.acquire()
            if self.left or (item := next(result, _END)) is _END:
                return
            self._tell(self.items.put_nowait, item)

    def _tell(self, what: Callable[[Any], None], value: Any) -> None:
        # A loop that is closed already has nobody to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, value)
