"""Texts that a model reads in one go, put together into batches while they arrive.

The rows of all requests that wait are one pool. While the model reads one batch, in a thread of its
own, more rows come; the next batch is chosen from what is there then. Everything else happens on
the event loop, so there are no locks.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

from dev_opsgpt.protocol.errors import ApiError, InternalError, OutOfMemory, Unavailable

log = logging.getLogger(__name__)

Row = TypeVar("Row")
Result = TypeVar("Result")

# Rows up to this long cost a batch about the same.
SHORT = 32


def pick(requests: Sequence[Sequence[int]], budget: int) -> list[tuple[int, int]]:
    """Which rows to read next, as (request, place) pairs. Pure.

    ``requests`` are the lengths of the rows that wait, in tokens, longest first within a request;
    the first request's turn it is. Its longest row is in the batch, and with it those that are no
    longer and at least half as long, nearest first: no row is padded to more than twice its length.
    Rows times the longest stay within ``budget``, which one row alone may pass. Of several requests
    with rows as long, each has its first before any has its second.
    """
    longest = max(requests[0][0], SHORT)
    fitting = sorted(
        (-max(length, SHORT), place, request)
        for request, lengths in enumerate(requests)
        for place, length in enumerate(lengths)
        if longest // 2 <= max(length, SHORT) <= longest
    )
    most = max(1, budget // longest)
    return [(request, place) for _, place, request in fitting[:most]]


class _Job(Generic[Row, Result]):
    """One request's rows: those that wait, longest first, and what came of the others."""

    def __init__(
        self, rows: Sequence[Row], lengths: Sequence[int], done: "asyncio.Future[list[Result]]"
    ) -> None:
        order = sorted(range(len(rows)), key=lambda place: -lengths[place])
        self.waiting = [(lengths[place], place, rows[place]) for place in order]
        self.results: dict[int, Result] = {}
        self.size = len(rows)
        self.done = done

    def add(self, place: int, result: Result) -> None:
        self.results[place] = result
        if len(self.results) == self.size and not self.done.done():
            self.done.set_result([self.results[place] for place in range(self.size)])

    def fail(self, error: ApiError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class RowBatcher(Generic[Row, Result]):
    """Reads rows in batches.

    ``read`` gives a result for each of a list of rows, and runs in ``thread``; ``length``
    tells a row's tokens. A batch has at most ``budget`` tokens, padding included. ``thread`` is an
    executor with one thread, which is shut down with the batcher.
    """

    def __init__(
        self,
        read: Callable[[list[Row]], list[Result]],
        length: Callable[[Row], int],
        *,
        budget: int,
        thread: ThreadPoolExecutor,
    ) -> None:
        self._read = read
        self._length = length
        self._budget = budget
        self._jobs: deque[_Job[Row, Result]] = deque()
        self._arrived = asyncio.Event()
        self._thread = thread
        self._task: asyncio.Task[None] | None = None
        self.batches = 0

    def start(self) -> None:
        """Begins to read. Called on the event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends every request (each raises ``Unavailable``) and the thread, when the batch that it
        reads is over."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for job in self._jobs:
            job.fail(Unavailable("The model is not loaded."))
        self._jobs.clear()
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def waiting(self) -> int:
        """How many rows wait."""
        return sum(len(job.waiting) for job in self._jobs)

    async def submit(self, rows: Sequence[Row]) -> list[Result]:
        """The results, in the order of the rows; at least one. A caller that is cancelled takes its
        rows out before the next batch. Raises ``ApiError``."""
        if self._task is None:
            raise Unavailable("The model is not loaded.")
        done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        job = _Job(rows, [self._length(row) for row in rows], done)
        self._jobs.append(job)
        self._arrived.set()
        try:
            return await done
        finally:
            if job in self._jobs:
                self._jobs.remove(job)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if not self._jobs:
                self._arrived.clear()
                continue
            chosen = self._take()
            rows = [row for _, _, row in chosen]
            self.batches += 1
            try:
                results = await loop.run_in_executor(self._thread, self._read, rows)
                if len(results) != len(rows):
                    raise ValueError(f"{len(results)} results for {len(rows)} rows")
            except Exception as error:
                told = _told(error)
                for job, _, _ in chosen:
                    job.fail(told)
                    job.waiting.clear()
                self._jobs = deque(job for job in self._jobs if job.waiting)
                continue
            except asyncio.CancelledError:
                for job, _, _ in chosen:
                    job.fail(Unavailable("The model is not loaded."))
                raise
            for (job, place, _), result in zip(chosen, results, strict=True):
                job.add(place, result)

    def _take(self) -> list[tuple[_Job[Row, Result], int, Row]]:
        """The next batch; the request whose turn it was goes to the end of the line."""
        jobs = list(self._jobs)
        picked = pick([[length for length, _, _ in job.waiting] for job in jobs], self._budget)
        chosen = [(jobs[request], *jobs[request].waiting[at][1:]) for request, at in picked]
        taken: dict[int, set[int]] = {}
        for request, at in picked:
            taken.setdefault(request, set()).add(at)
        for request, places in taken.items():
            waiting = jobs[request].waiting
            jobs[request].waiting = [row for at, row in enumerate(waiting) if at not in places]
        turned = [*jobs[1:], jobs[0]]
        self._jobs = deque(job for job in turned if job.waiting)
        return chosen


def _told(error: Exception) -> ApiError:
    """What a request is told where the model failed."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return OutOfMemory("The model ran out of memory.")
    log.error("the model failed", exc_info=error)
    return InternalError("The model failed; see the worker's log.")
