"""Limits of several machines: several gateways on one real Redis, and none of it."""

import asyncio
import gc
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as redis_client

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits import UNLIMITED, Lease, Used
from dev_opsgpt.gateway.limits import redis_limits as module
from dev_opsgpt.gateway.limits.redis_limits import RedisLimits
from dev_opsgpt.protocol import errors
from dev_opsgpt.protocol.errors import QuotaExceeded, RateLimited, RequestsLimited, TokensLimited
from tests.storage.servers import Redis, redis


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with redis() as found:
        yield found


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes, Redis is not away."""
    monkeypatch.setattr(module, "TIMEOUT", 30.0)


@pytest.fixture(autouse=True)
async def _empty(server: Redis) -> None:
    async with redis_client.Redis.from_url(server.url) as client:
        await client.flushall()


@asynccontextmanager
async def gateways(
    server: Redis, count: int = 1, **options: Any
) -> AsyncIterator[list[RedisLimits]]:
    found = [RedisLimits(server.url, **options) for _ in range(count)]
    try:
        yield found
    finally:
        for one in found:
            await one.close()


def key(**limits: Any) -> Key:
    return Key("key_1", 1, **limits)


async def settled(limits: RedisLimits, holder: Key, expected: Used) -> None:
    """Waits until what is over is known."""
    async with asyncio.timeout(30):
        while (found := await limits.used(holder)) != expected:
            await asyncio.sleep(0.01)
            assert found is not None


async def test_several_gateways_share_each_limit(server: Redis) -> None:
    holder = key(rpm=40, tpm=10_000, concurrent=1000)
    async with gateways(server, 3) as all_of_them:
        asked = [one.admit(holder, 3) for one in all_of_them for _ in range(30)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        leases = [answer for answer in answers if isinstance(answer, Lease)]
        refused = [answer for answer in answers if isinstance(answer, RequestsLimited)]
        assert (len(leases), len(refused)) == (40, 50)
        assert {lease.requests_left for lease in leases} == set(range(40))
        assert await all_of_them[0].used(holder) == Used(40, 120, 40, 0.0)
        for lease in leases:
            all_of_them[1].settle(lease, 2, 0.5)
            all_of_them[1].settle(lease, 2, 0.5)
        await settled(all_of_them[2], holder, Used(40, 80, 0, 0.0))


async def test_what_clients_are_told(server: Redis) -> None:
    async with gateways(server) as (limits,):
        lease = await limits.admit(key(rpm=1, tpm=100), 60)
        lines = dict(line.split(": ") for line in lease.header_lines().decode().splitlines())
        assert lines.pop("x-ratelimit-reset-requests") == lines.pop("x-ratelimit-reset-tokens")
        assert lines == {
            "x-ratelimit-limit-requests": "1",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-limit-tokens": "100",
            "x-ratelimit-remaining-tokens": "40",
        }
        with pytest.raises(RequestsLimited) as caught:
            await limits.admit(key(rpm=1, tpm=100), 1)
        assert 30 < (caught.value.retry_after or 0) <= 60
        assert errors.headers(caught.value)["x-ratelimit-remaining-tokens"] == "40"
        with pytest.raises(TokensLimited, match="Used 60, Requested 41"):
            await limits.admit(key(tpm=100), 41)
        with pytest.raises(TokensLimited, match="too large"):
            await limits.admit(key(tpm=100), 101)
        limits.settle(lease, None, 0.0)
        assert await limits.admit(key(), 5) is UNLIMITED
        assert (await limits.used(key(rpm=1, tpm=1))).requests == 1


async def test_windows_end(server: Redis) -> None:
    """Redis's own clock rules, so its past is written by hand: what is out of the window leaves,
    what is in it stays."""
    async with gateways(server) as (limits,), redis_client.Redis.from_url(server.url) as client:
        now = int(time.time() * 10)
        stem = "opsgpt:{key_1}:requests"
        for bucket, count in ((now - 700, 3), (now - 601, 2), (now - 300, 4)):
            await client.hset(stem, str(bucket), str(count))
            await client.hincrby(stem, "sum", count)
            await client.rpush(f"{stem}:order", str(bucket))
        lease = await limits.admit(key(rpm=5), 1)
        assert lease.requests_left == 0
        with pytest.raises(RequestsLimited) as caught:
            await limits.admit(key(rpm=5), 1)
        assert caught.value.retry_after == pytest.approx(25, abs=6)
        assert await client.lrange(f"{stem}:order", 0, -1) == [
            str(now - 300).encode(),
            str(lease.bucket).encode(),
        ]
        assert 0 < await client.pttl(stem) <= 61_000


async def test_budgets(server: Redis) -> None:
    holder = key(budget=1.0, budget_period="day")
    async with gateways(server, 2) as (one, two):
        await one.spent(holder, time.time(), 0.25)
        await two.spent(holder, time.time(), 0.125)
        one.settle(await one.admit(holder, 1), 1, 0.5)
        await settled(two, holder, Used(0, 0, 0, 0.75))
        two.settle(await two.admit(holder, 1), 1, 0.25)
        await settled(one, holder, Used(0, 0, 0, 1.0))
        with pytest.raises(QuotaExceeded):
            await one.admit(holder, 1)


async def test_a_dead_gateway_s_requests_are_forgotten(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_LIVES", 2.0)
    monkeypatch.setattr(module, "BEAT", 0.1)
    holder = key(concurrent=2)
    async with gateways(server, 2) as (dead, alive):
        mine = await alive.admit(holder, 1)
        lost = await dead.admit(holder, 1)
        for task in dead._tasks:
            task.cancel()
        with pytest.raises(RequestsLimited):
            await alive.admit(holder, 1)
        await settled(alive, holder, Used(0, 0, 1, 0.0))
        # The other one, of whom is heard, stays.
        await asyncio.sleep(2.5)
        assert (await alive.used(holder)).concurrent == 1
        lost.settled = True
        alive.settle(mine, 1, 0.0)
        await settled(alive, holder, Used())


async def test_dropped_and_cancelled_requests_lock_nobody_out(server: Redis) -> None:
    holder = key(concurrent=1)
    async with gateways(server) as (limits,):
        lease = await limits.admit(holder, 1)
        del lease
        gc.collect()
        await settled(limits, holder, Used())
        task = asyncio.create_task(limits.admit(holder, 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        gc.collect()
        await settled(limits, holder, Used())


async def test_without_redis_each_process_counts_by_itself(
    server: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.05)
    holder = key(rpm=2, tpm=100, concurrent=10)
    async with gateways(server, 2) as (one, two):
        leases = [(one, await one.admit(holder, 10))]
        server.stop()
        try:
            for limits in (one, two):
                leases += [(limits, await limits.admit(holder, 10)) for _ in range(2)]
                with pytest.raises(RateLimited):
                    await limits.admit(holder, 10)
            for limits, lease in leases:
                limits.settle(lease, 20, 0.0)
            assert await two.used(holder) == Used(2, 40, 0, 0.0)
            await two.spent(key(budget=1.0), time.time(), 2.0)
            with pytest.raises(QuotaExceeded):
                await two.admit(key(budget=1.0), 1)
        finally:
            server.start()
        async with asyncio.timeout(30):
            while caplog.text.count("Redis is back") < 2:
                caplog.set_level("INFO")
                await asyncio.sleep(0.05)
        lease = await one.admit(holder, 10)
        assert lease.requests_left == 1
        one.settle(lease, 10, 0.0)
    assert caplog.text.count("Redis is away") == 2


async def test_when_redis_is_back_it_counts_for_all_again(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the many connections from before none brings it away again."""
    monkeypatch.setattr(module, "RETRY", 0.05)
    holder = key(rpm=20)
    budget = key(budget=1.0)
    async with gateways(server, 2) as both:
        many = [key(rpm=1000)] * module.CONNECTIONS
        for limits in both:
            await asyncio.gather(*(limits.admit(one, 1) for one in many))
            assert not limits.forgot()
        server.stop()
        for limits in both:
            await limits.admit(holder, 1)
        server.start()
        async with asyncio.timeout(10):
            for limits in both:
                while not limits.forgot():
                    await asyncio.sleep(0.05)
        assert not any(limits.forgot() for limits in both), "it is told once"
        admitted = await asyncio.gather(
            *(limits.admit(holder, 1) for limits in both for _ in range(30)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, Lease) for one in admitted) == 20
        await both[0].spent(budget, time.time(), 2.0)
        with pytest.raises(QuotaExceeded):
            await both[1].admit(budget, 1)


async def test_a_redis_that_does_not_answer_is_one_that_is_away(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    holder = key(rpm=1)
    async with gateways(server) as (limits,):
        assert server._process is not None
        subprocess.run(["kill", "-STOP", str(server._process.pid)], check=True)
        try:
            await limits.admit(holder, 1)
            with pytest.raises(RequestsLimited):
                await limits.admit(holder, 1)
        finally:
            subprocess.run(["kill", "-CONT", str(server._process.pid)], check=True)


async def test_no_password_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    limits = RedisLimits("redis://alice:wonderland@127.0.0.1:1/0")
    await limits.admit(key(rpm=1), 1)
    await limits.close()
    assert "Redis is away" in caplog.text
    assert "wonderland" not in caplog.text
