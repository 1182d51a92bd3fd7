"""Expiry by an injected clock, and waiting for the table to change."""

import asyncio
from random import Random
from typing import Any

import pytest

from dev_opsgpt.controller.registry import Registry
from dev_opsgpt.controller.sweep import sweep_forever
from dev_opsgpt.routing.dispatch import dispatcher
from dev_opsgpt.routing.table import Worker

from .conftest import Api, eventually

A, B = "http://10.9.9.1:1", "http://10.9.9.2:1"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def registry(clock: Clock) -> Registry:
    return Registry(dispatcher("least_load", Random(1)), clock)


def row(address: str, *models: str) -> Worker:
    return Worker(address=address, models=models, kind="opsgpt")


async def test_expiry_by_the_clock_over_http(controller: Any) -> None:
    clock = Clock()
    api: Api = await controller(clock=clock, sweep_interval=0.02)
    await api.register(A, "m")
    body = {
        "worker_name": B,
        "check_heart_beat": True,
        "worker_status": {"model_names": ["m"], "speed": 1, "queue_length": 0},
    }
    await api.call("/register_worker", body)
    unchecked = body | {"worker_name": "http://10.9.9.3:1", "check_heart_beat": False}
    await api.call("/register_worker", unchecked)
    clock.now += 6.9  # a beat each 2 s: gone after 7 s
    await asyncio.sleep(0.1)
    assert A in await api.workers()

    async def gone(address: str) -> bool:
        # A moment more each time: one in which this process really stands still is forgiven.
        clock.now += 0.01
        return address not in await api.workers()

    await eventually(lambda: gone(A))
    beat = {"worker_name": A, "queue_length": 0}
    assert await api.call("/receive_heart_beat", beat) == {"exist": False}
    clock.now = 1089.9  # FastChat's workers are given 90
    await asyncio.sleep(0.1)
    assert B in await api.workers()
    await eventually(lambda: gone(B))
    clock.now += 1e6
    await asyncio.sleep(0.1)
    assert list(await api.workers()) == [unchecked["worker_name"]]


async def test_beats_keep_a_worker(controller: Any) -> None:
    clock = Clock()
    api: Api = await controller(clock=clock, sweep_interval=0.02)
    await api.register(A, "m", beat_interval=2.0)
    for _ in range(5):
        clock.now += 5
        await asyncio.sleep(0.1)
        assert await api.call("/receive_heart_beat", {"worker_name": A, "queue_length": 0}) == {
            "exist": True
        }

    async def gone() -> bool:
        clock.now += 1
        return not await api.workers()

    await eventually(gone)


async def test_a_sweep_that_comes_late_drops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    live = registry(clock)
    live.register(row(A, "m"), lifetime=7)
    job = asyncio.create_task(sweep_forever(live, 0.02))
    await asyncio.sleep(0.05)
    # The process stands still for 10 s: the loop's clock and ours both jump.
    loop = asyncio.get_running_loop()
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + 10)
    clock.now += 10
    await asyncio.sleep(0.1)
    assert live.table.get(A) is not None

    def gone() -> bool:
        clock.now += 1  # but silence while we listened counts
        return live.table.get(A) is None

    await eventually(gone)
    job.cancel()
    await asyncio.wait([job])


async def test_until() -> None:
    live = registry(Clock())
    waiting = asyncio.create_task(live.until(lambda: len(live.table) == 2, 5))
    for address in (A, B):
        await asyncio.sleep(0)
        assert not waiting.done()
        live.register(row(address, "m"), lifetime=None)
    assert await waiting
    assert not await live.until(lambda: len(live.table) == 3, 0.02)
    assert await live.until(lambda: True, 0)


async def test_dispatch_passes_over_attached_servers() -> None:
    live = registry(Clock())
    live.register(Worker(address=A, models=("m",), kind="openai"), lifetime=None)
    assert live.dispatch("m") is None
    live.register(row(B, "m"), lifetime=None)
    assert live.dispatch("m").address == B
    assert live.table.get(B).queue_length == 1
