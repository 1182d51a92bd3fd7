"""Requests that wait while every replica is busy: in which order, how many, for how long."""

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev_opsgpt.controller.options import AttachedServer
from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.worker.engine import Delta
from tests.support.engines import ScriptedEngine
from tests.support.stack import SECRET, Stack, running
from tests.support.upstream import Call, Upstream, ask, chat, figures, quiet, records, until

BUSY = 2
"""Requests that a worker with one slot is given."""


class Gated(ScriptedEngine):
    """Answers when it is told to; ``order`` is what it was asked, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.order: list[str] = []
        self.most = 0

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        self.order.append(request.messages[-1].text())
        async for delta in super().chat(request, index=index):
            self.most = max(self.most, self.active)
            await self.gate.wait()
            yield delta


async def depth(stack: Stack) -> float:
    return sum((await figures(stack, "opsgpt_queue_depth")).values())


async def waiting(stack: Stack, number: int) -> None:
    async with asyncio.timeout(30):
        while await depth(stack) != number:
            await asyncio.sleep(0.01)


async def busy(stack: Stack, engine: Gated) -> list[asyncio.Task[httpx.Response]]:
    """Fills the only worker."""
    tasks = [asyncio.create_task(ask(stack, "busy")) for _ in range(BUSY)]
    async with asyncio.timeout(30):
        while sum((await figures(stack, "opsgpt_requests_in_flight")).values()) != BUSY:
            await asyncio.sleep(0.01)
    return tasks


async def test_all_that_wait_are_served() -> None:
    engines = [Gated(), Gated()]
    async with running({"echo": engines}, worker={"limit": 2}) as stack:
        found = records(stack)
        asked = [asyncio.create_task(ask(stack, stream=n % 2 == 0)) for n in range(40)]
        await waiting(stack, 40 - 2 * 3)
        for engine in engines:
            engine.gate.set()
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        assert max(engine.most for engine in engines) <= 2
        assert sum(record.queued > 0 for record in found) == 34
        assert all(record.duration >= record.queued for record in found)
        assert {record.attempts for record in found} == {1}
        await quiet(stack)
        assert await depth(stack) == 0


@pytest.mark.parametrize("limited", [False, True])
async def test_an_attached_server_gets_no_more_than_it_runs(limited: bool) -> None:
    """Where somebody has said how many that is."""
    gate = asyncio.Event()

    async def waits(call: Call) -> None:
        await gate.wait()
        await call.say()

    server = Upstream(waits)
    await server.start()
    attached = AttachedServer("echo", server.url, limit=2, limited=limited)
    controller = {"attached": (attached,), "probe_interval": 0.2}
    async with running({}, controller=controller) as stack:
        await stack.expect(1)
        asked = [asyncio.create_task(ask(stack)) for _ in range(10)]
        await until(lambda: server.at_work == (3 if limited else 10))
        await waiting(stack, 7 if limited else 0)
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    await server.stop()


async def make_key(stack: Stack, priority: int) -> dict[str, str]:
    answer = await stack.client.post(
        "/admin/keys",
        json={"priority": priority},
        headers={"authorization": f"Bearer {SECRET}"},
    )
    assert answer.status_code in (200, 201), answer.text
    return {"authorization": f"Bearer {answer.json()['key']}"}


async def test_the_more_important_go_first_and_the_least_are_shed(tmp_path: Path) -> None:
    engine = Gated()
    routes = {"echo": Route(queue_size=8)}
    database = f"sqlite:///{tmp_path}/keys.db"
    async with running(
        {"echo": [engine]}, worker={"limit": 1}, database_url=database, routes=routes
    ) as stack:
        low, high = await make_key(stack, 0), await make_key(stack, 1)
        stack.client.headers.update(low)
        first = await busy(stack, engine)

        async def comes(
            name: str, key: dict[str, str], tier: str | None
        ) -> asyncio.Task[httpx.Response]:
            before = await depth(stack)
            body = chat(name) | ({} if tier is None else {"service_tier": tier})
            sent = stack.client.post("/v1/chat/completions", json=body, headers=key)
            task = asyncio.create_task(sent)
            async with asyncio.timeout(30):
                while await depth(stack) == before and not task.done():
                    await asyncio.sleep(0.01)
                    if name.startswith("pushes"):
                        break
            return task

        tasks = [
            await comes(name, key, tier)
            for name, key, tier in (
                ("flex", low, "flex"),
                ("one", low, None),
                ("soon", low, "priority"),
                ("two", low, "default"),
                ("high flex", high, "flex"),
                ("high", high, None),
                ("odd", low, "no such tier"),
                ("three", low, "auto"),
            )
        ]
        assert await depth(stack) == 8
        full = await comes("no room", low, "flex")
        assert (await full).status_code == 429
        pushes = [await comes("pushes flex", low, None), await comes("pushes that", high, "flex")]
        # Of the least important the one that came last.
        shed = [tasks[0], pushes[0]]
        for answer in await asyncio.gather(*shed):
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.json()["error"]["code"] == "overloaded"
        assert not any(task.done() for task in tasks if task not in shed)
        engine.gate.set()
        served = [task for task in (*first, *tasks, *pushes) if task not in shed]
        assert {(await task).status_code for task in served} == {200}
        assert engine.order == [
            *["busy"] * 2,
            *["high", "high flex", "pushes that"],
            *["soon", "one", "two", "odd", "three"],
        ]
        assert sum((await figures(stack, "opsgpt_shed_total")).values()) == 3
        await quiet(stack)


async def test_who_has_waited_too_long_is_told() -> None:
    engine = Gated()
    routes = {
        "echo": Route(queue_timeout=0.2),
        "smart": Route(fallbacks=("echo", "other")),
        "alias": Route(queue_timeout=0.2, fallbacks=("other",)),
    }
    engines: dict[str, list[Any]] = {"echo": [engine], "other": [ScriptedEngine()]}
    async with running(engines, worker={"limit": 1}, routes=routes) as stack:
        found = records(stack)
        first = await busy(stack, engine)
        for stream in (False, True):
            answer = await ask(stack, stream=stream)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert found[-1].queued >= 0.2
            assert found[-1].attempts == 0
        assert (await ask(stack, model="smart")).status_code == 200
        assert (found[-1].served, found[-1].attempts) == ("other", 1)
        engine.gate.set()
        assert {(await task).status_code for task in first} == {200}
        assert (await ask(stack)).status_code == 200
        await quiet(stack)


async def test_nobody_may_wait() -> None:
    engine = Gated()
    async with running({"echo": [engine]}, worker={"limit": 1}, route=Route(queue_size=0)) as stack:
        first = await busy(stack, engine)
        for _ in range(3):
            assert (await ask(stack)).status_code == 429
        await stack.add_worker(ScriptedEngine(), limit=1)
        await stack.expect(2)
        assert (await ask(stack)).status_code == 200, "the new one is free"
        engine.gate.set()
        assert {(await task).status_code for task in first} == {200}


async def test_a_client_that_leaves_the_line_leaves_no_trace() -> None:
    engine = Gated()
    async with running({"echo": [engine]}, worker={"limit": 1}) as stack:
        found = records(stack)
        first = await busy(stack, engine)
        leaving = [asyncio.create_task(ask(stack, "leaves")) for _ in range(20)]
        staying = [asyncio.create_task(ask(stack, "stays")) for _ in range(5)]
        await waiting(stack, 25)
        for task in leaving:
            task.cancel()
        await waiting(stack, 5)
        engine.gate.set()
        assert {(await task).status_code for task in (*first, *staying)} == {200}
        assert "leaves" not in engine.order
        assert sum(record.status == 499 for record in found) == 20
        await quiet(stack)

        # Some leave in the very moment when it is their turn.
        rng = random.Random(1)
        for _ in range(5):
            crowd = [asyncio.create_task(ask(stack, "crowd")) for _ in range(30)]
            for task in crowd:
                await asyncio.sleep(rng.uniform(0, 0.004))
                if rng.random() < 0.5:
                    task.cancel()
            ends = await asyncio.gather(*crowd, return_exceptions=True)
            good = [end for end in ends if not isinstance(end, BaseException)]
            assert {answer.status_code for answer in good} <= {200}
        await quiet(stack)
        assert (await ask(stack)).status_code == 200


async def drain(stack: Stack, address: str) -> None:
    answer = await stack.client.post(
        f"{stack.controller_url}/drain_worker",
        json={"worker_name": address},
        headers={"authorization": f"Bearer {SECRET}"},
    )
    assert answer.json()["exist"]


async def test_those_who_wait_outlast_a_replica() -> None:
    """They are served by the next one that comes; who comes meanwhile is told to come again."""
    engine, other = Gated(), ScriptedEngine()
    async with running({"echo": [engine]}, worker={"limit": 1}) as stack:
        first = await busy(stack, engine)
        asked = [asyncio.create_task(ask(stack, "waits")) for _ in range(3)]
        await waiting(stack, 3)
        await drain(stack, stack.workers[0].address)
        await stack.expect(0)
        answer = await ask(stack, "comes")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert not any(task.done() for task in asked)
        await stack.add_worker(other, limit=1)
        assert {(await task).status_code for task in asked} == {200}
        assert other.served == 3
        engine.gate.set()
        assert {(await task).status_code for task in first} == {200}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_gateway_that_stops_serves_who_runs_and_who_waits(stream: bool) -> None:
    engine = Gated()
    async with running({"echo": [engine]}, worker={"limit": 1}) as stack:
        found = records(stack)
        reader, idle = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
        idle.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b" 200 " in await reader.readline()
        asked = [asyncio.create_task(ask(stack, stream=stream)) for _ in range(6)]
        await waiting(stack, 4)
        stopping = asyncio.create_task(stack.gateway.stop())
        # A connection on which nothing happens is closed, while others wait.
        async with asyncio.timeout(30):
            await reader.read()
        idle.close()
        assert not stopping.done()
        engine.gate.set()
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        assert all(answer.headers.get("connection") == "close" for answer in answers) or stream
        if stream:
            assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
        await asyncio.wait_for(stopping, 30)
        assert len(found) == 6
