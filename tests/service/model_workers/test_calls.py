"""Threads that hang are counted; everything else about calls is seen through the engine."""

import asyncio
import threading
from typing import Any

import pytest

from dev_opsgpt.protocol.errors import Overloaded, UpstreamTimeout
from dev_opsgpt.service.model_workers import calls
from dev_opsgpt.service.model_workers.calls import AHEAD, Calls


async def taken(items: Any) -> list[Any]:
    return [item async for item in items]


async def test_threads_that_hang_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "PATIENCE", 0.05)
    release = threading.Event()
    found = Calls(limit=1, timeout=0.5)

    def hangs(_: Any) -> int:
        release.wait(30)
        return 1

    with pytest.raises(UpstreamTimeout):
        await taken(found.items(hangs, None))
    with pytest.raises(Overloaded, match="do not return"):
        await taken(found.items(lambda _: 2, None))
    release.set()
    async with asyncio.timeout(30):
        while True:
            try:
                assert await taken(found.items(lambda _: 2, None)) == [2]
                break
            except Overloaded:
                await asyncio.sleep(0.01)


async def test_a_generator_runs_only_a_little_ahead() -> None:
    count = 0

    def endless(_: Any) -> Any:
        nonlocal count
        while True:
            count += 1
            yield count

    items = Calls(limit=1, timeout=5).items(endless, None)
    assert await anext(items) == 1
    await asyncio.sleep(0.2)
    assert count <= AHEAD + 2
    await items.aclose()


async def test_no_more_threads_than_allowed() -> None:
    running = most = 0
    lock = threading.Lock()

    def counts(_: Any) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1
        return most

    found = Calls(limit=2, timeout=5)
    await asyncio.gather(*(taken(found.items(counts, None)) for _ in range(6)))
    assert most <= 2


async def test_a_stop_iteration_is_an_error_like_any_other() -> None:
    def raises(_: Any) -> Any:
        raise StopIteration

    with pytest.raises(RuntimeError):
        await taken(Calls(limit=1, timeout=5).items(raises, None))
