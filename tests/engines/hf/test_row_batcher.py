"""Rows of several requests in one batch: which of them, in what turn, and what ends them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.engines.hf.row_batcher import SHORT, RowBatcher, pick
from dev_opsgpt.protocol.errors import InternalError, OutOfMemory, Unavailable

LENGTHS = st.lists(
    st.lists(st.integers(1, 600), min_size=1, max_size=12).map(lambda one: sorted(one)[::-1]),
    min_size=1,
    max_size=6,
)


@given(LENGTHS, st.integers(1, 4096))
def test_a_batch_keeps_to_its_rules(requests: list[list[int]], budget: int) -> None:
    picked = pick(requests, budget)
    assert len(set(picked)) == len(picked)
    assert (0, 0) in picked
    lengths = [requests[request][place] for request, place in picked]
    assert max(lengths) <= max(requests[0][0], SHORT)
    assert len(picked) == 1 or max(lengths) * len(picked) <= max(budget, SHORT * len(picked))
    assert all(2 * max(length, SHORT) + 1 >= max(lengths) for length in lengths)


@pytest.mark.parametrize(
    ("requests", "budget", "wanted"),
    [
        ([[10, 5]], 1000, [(0, 0), (0, 1)]),
        # Those that are half as long or less wait for a batch of their own.
        ([[100, 60, 40]], 1000, [(0, 0), (0, 1)]),
        # Longer ones too: they would make all others longer.
        ([[100], [200, 90]], 1000, [(0, 0), (1, 1)]),
        ([[100, 100, 100], [100]], 200, [(0, 0), (1, 0)]),
        ([[100, 100, 100], [100]], 50, [(0, 0)]),
        ([[1] * 3, [1]], 3 * SHORT, [(0, 0), (1, 0), (0, 1)]),
    ],
)
def test_by_hand(requests: list[list[int]], budget: int, wanted: list[tuple[int, int]]) -> None:
    assert pick(requests, budget) == wanted


class Model:
    """A model that doubles numbers; a row of n has n tokens. ``gate`` holds it up."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.began = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def read(self, rows: list[int]) -> list[int]:
        self.seen.append(rows)
        self.threads.add(threading.get_ident())
        self.began.set()
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return [2 * row for row in rows]


@asynccontextmanager
async def batching(model: Model, budget: int = 1000) -> AsyncIterator[RowBatcher[int, int]]:
    batcher = RowBatcher(model.read, lambda row: row, budget=budget, thread=ThreadPoolExecutor(1))
    batcher.start()
    try:
        yield batcher
    finally:
        model.gate.set()
        await batcher.stop()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.001)


async def test_requests_that_wait_are_read_together() -> None:
    model = Model()
    model.gate.clear()
    async with batching(model) as batcher:
        first = asyncio.create_task(batcher.submit([7]))
        await until(model.began.is_set)
        others = [asyncio.create_task(batcher.submit([n, 10 + n])) for n in range(4)]
        await until(lambda: batcher.waiting == 8)
        # The event loop is free while the model reads.
        model.gate.set()
        assert await first == [14]
        assert [await other for other in others] == [[2 * n, 20 + 2 * n] for n in range(4)]
    assert [len(rows) for rows in model.seen] == [1, 8]
    assert len(model.threads) == 1
    assert threading.get_ident() not in model.threads


async def test_a_large_request_lets_others_in_between() -> None:
    model = Model()
    model.gate.clear()
    async with batching(model, budget=400) as batcher:
        large = asyncio.create_task(batcher.submit([100] * 40))
        await until(model.began.is_set)
        small = asyncio.create_task(batcher.submit([300]))
        await until(lambda: batcher.waiting == 37)
        model.gate.set()
        assert await small == [600]
        assert batcher.waiting > 20
        assert await large == [200] * 40


async def test_who_gives_up_is_not_read() -> None:
    model = Model()
    model.gate.clear()
    async with batching(model) as batcher:
        first = asyncio.create_task(batcher.submit([1]))
        await until(model.began.is_set)
        gone, stays = (asyncio.create_task(batcher.submit([n])) for n in (2, 3))
        await until(lambda: batcher.waiting == 2)
        gone.cancel()
        first.cancel()
        await asyncio.gather(gone, first, return_exceptions=True)
        assert batcher.waiting == 1
        model.gate.set()
        assert await stays == [6]
    assert model.seen == [[1], [3]]


@pytest.mark.parametrize(
    ("error", "told"), [(ValueError("odd"), InternalError), (MemoryError(), OutOfMemory)]
)
async def test_a_failure_ends_the_requests_of_its_batch(
    error: Exception, told: type[Exception]
) -> None:
    model = Model()
    model.error = error
    async with batching(model, budget=SHORT) as batcher:
        with pytest.raises(told):
            await batcher.submit([1, 2, 3])
        assert batcher.waiting == 0
        model.error = None
        assert await batcher.submit([1, 2]) == [2, 4]


async def test_a_result_too_few_is_a_failure() -> None:
    class Short(Model):
        def read(self, rows: list[int]) -> list[int]:
            return super().read(rows)[1:]

    async with batching(Short()) as batcher:
        for _ in range(2):
            with pytest.raises(InternalError):
                await batcher.submit([1, 2])


async def test_stop_ends_what_waits_and_what_is_read() -> None:
    model = Model()
    model.gate.clear()
    async with batching(model) as batcher:
        reading = asyncio.create_task(batcher.submit([1]))
        await until(model.began.is_set)
        waiting = asyncio.create_task(batcher.submit([2]))
        await until(lambda: batcher.waiting == 1)
        stopping = asyncio.create_task(batcher.stop())
        for task in (reading, waiting):
            with pytest.raises(Unavailable):
                await task
        model.gate.set()
        await stopping
        with pytest.raises(Unavailable):
            await batcher.submit([1])
