"""Admission: the limit, the queue, patience, and waiters that leave."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.protocol.errors import Overloaded, Unavailable
from dev_opsgpt.worker.admission import Admission


async def hold(admission: Admission, release: asyncio.Event) -> None:
    async with admission.slot():
        await release.wait()


async def test_the_limit_runs_and_the_rest_waits_in_order() -> None:
    admission = Admission(2, queue_size=10)
    order: list[int] = []

    async def job(number: int) -> None:
        async with admission.slot():
            order.append(number)
            await asyncio.sleep(0.01)

    jobs = [asyncio.create_task(job(i)) for i in range(6)]
    await asyncio.sleep(0)
    assert (admission.running, admission.waiting, admission.queue_length) == (2, 4, 6)
    await asyncio.gather(*jobs)
    assert order == list(range(6))
    assert admission.queue_length == 0


async def test_a_full_queue_is_overload() -> None:
    admission = Admission(1, queue_size=1)
    release = asyncio.Event()
    jobs = [asyncio.create_task(hold(admission, release)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await hold(admission, release)
    assert caught.value.retry_after
    release.set()
    await asyncio.gather(*jobs)


async def test_patience_ends() -> None:
    admission = Admission(1, queue_timeout=0.05)
    release = asyncio.Event()
    job = asyncio.create_task(hold(admission, release))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="waited"):
        await hold(admission, release)
    assert admission.waiting == 0
    release.set()
    await job
    await hold(admission, release)


async def test_a_waiter_that_leaves_just_as_its_turn_comes_passes_it_on() -> None:
    admission = Admission(1)
    release = asyncio.Event()
    first, second, third = (asyncio.create_task(hold(admission, release)) for _ in range(3))
    await asyncio.sleep(0)
    # The turn is given to the second while its cancellation is already under way.
    first.cancel()
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0.01)
    assert (admission.running, admission.waiting) == (1, 0)
    release.set()
    await third
    assert await admission.drained(1)


async def test_drain() -> None:
    admission = Admission(1)
    release = asyncio.Event()
    running = asyncio.create_task(hold(admission, release))
    waiting = asyncio.create_task(hold(admission, release))
    await asyncio.sleep(0)
    admission.close()
    with pytest.raises(Unavailable):
        await hold(admission, release)
    assert not await admission.drained(0.01)
    release.set()
    assert await admission.drained(1)
    await asyncio.gather(running, waiting)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40), st.integers(1, 4))
def test_no_slot_is_ever_lost(steps: list[tuple[int, bool]], limit: int) -> None:
    async def run() -> None:
        admission = Admission(limit, queue_size=100)
        release = asyncio.Event()
        jobs: list[asyncio.Task[None]] = []
        for pause, cancel in steps:
            if cancel and jobs:
                jobs[pause % len(jobs)].cancel()
            else:
                jobs.append(asyncio.create_task(hold(admission, release)))
            for _ in range(pause):
                await asyncio.sleep(0)
            assert admission.running <= limit
        release.set()
        await asyncio.gather(*jobs, return_exceptions=True)
        assert (admission.running, admission.waiting) == (0, 0)
        async with admission.slot():
            assert admission.running == 1

    asyncio.run(run())
