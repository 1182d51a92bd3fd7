"""A second replica that is asked beside a slow one."""

import asyncio
import time
from typing import Any

import pytest

from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.routing.breaker import BreakerOptions
from tests.support.engines import ScriptedEngine
from tests.support.fastchat_worker import FastChatWorker
from tests.support.stack import Stack, running
from tests.support.upstream import (
    Behaviour,
    Call,
    Upstream,
    ask,
    attached,
    figures,
    hang,
    quiet,
    records,
    refuses,
    says,
    until,
)

IN_TURN = "round_robin"
HEDGED = Route(dispatch_method=IN_TURN, hedge_after=0.5)


def after(seconds: float, behave: Behaviour) -> Behaviour:
    async def later(call: Call) -> None:
        await asyncio.sleep(seconds)
        await behave(call)

    return later


async def hedges(stack: Stack) -> float:
    return sum((await figures(stack, "opsgpt_hedges_total")).values())


async def in_flight(stack: Stack) -> list[float]:
    return sorted((await figures(stack, "opsgpt_requests_in_flight")).values())


async def test_off_unless_configured() -> None:
    slow, good = Upstream(after(1.0, says("slow"))), Upstream(says("good"))
    async with attached([slow, good], route=Route(dispatch_method=IN_TURN)) as stack:
        texts = [(await ask(stack)).text for _ in range(2)]
        assert sorted("slow" in text for text in texts) == [False, True]
        assert (slow.asked, good.asked) == (1, 1)
        assert await hedges(stack) == 0


async def head_only(call: Call) -> None:
    await call.begin()
    await call.hang()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_answer_wins_and_the_other_is_let_go(stream: bool) -> None:
    told = asyncio.Event()

    async def goes_on(call: Call) -> None:
        if not stream:
            await call.say("good")
            return
        await call.begin()
        await call.chunk("good")
        await told.wait()
        await call.end()

    silent, good = Upstream(hang), Upstream(goes_on)
    async with attached([silent, good], route=HEDGED) as stack:
        found = records(stack)
        for number, behave in enumerate((hang, head_only) if stream else (hang,), 1):
            told.clear()
            silent.behave = behave
            asked = [asyncio.create_task(ask(stack, stream=stream)) for _ in range(2)]
            await until(lambda: good.asked == 2 * number)  # noqa: B023 - awaited at once
            await until(lambda: silent.calls[-1].left)
            if stream:
                assert await in_flight(stack) == [0, 2], "only the winner is counted on"
            told.set()
            assert all("good" in answer.text for answer in await asyncio.gather(*asked))
            assert sorted(record.attempts for record in found[-2:]) == [1, 2]
            assert {record.replica for record in found} == {good.url}
            assert await hedges(stack) == number
        await quiet(stack)
        assert silent.at_work == 0
        gateway = stack.gateway._gateway
        assert gateway is not None
        times = {one.address: one.first_token for one in gateway._fleet.replicas()}
        assert times[silent.url] is None
        assert (times[good.url] or 1) < 0.5, "its own time, without that of the other"


async def test_the_slow_one_may_win() -> None:
    slow, slower = Upstream(after(0.8, says("slow"))), Upstream(hang)
    async with attached([slow, slower], route=HEDGED) as stack:
        assert "slow" in (await ask(stack)).text
        assert slower.asked == 1
        await until(lambda: slower.calls[-1].left)
        await quiet(stack)


async def test_the_engine_of_the_one_that_lost_is_told() -> None:
    first, second = engines = [ScriptedEngine(0.3), ScriptedEngine(0.3)]
    route = Route(hedge_after=0.1)
    async with running({"echo": engines}, route=route) as stack:
        for stream in (False, True):
            answer = await ask(stack, "a b", stream=stream)
            assert answer.status_code == 200
        await quiet(stack)
        assert first.served + second.served == 4
        assert first.closed.is_set() or second.closed.is_set()
        await until(lambda: first.active + second.active == 0)


async def test_one_of_two_fails() -> None:
    """Whatever the one does, the other one's answer counts; and a failure is counted."""
    first, second = Upstream(), Upstream()
    options = BreakerOptions(failures=2, open_for=60.0)
    async with attached([first, second], route=HEDGED, breaker=options) as stack:
        found = records(stack)
        for bad, good in ((first, second), (second, first)):
            bad.behave = after(0.7, refuses(500))
            good.behave = after(0.9, says("good"))
            answer = await ask(stack)
            assert "good" in answer.text
            assert found.pop().replica == good.url
        assert set((await figures(stack, "opsgpt_breaker_state")).values()) == {0.0}
        first.behave = second.behave = after(0.7, refuses(500))
        answer = await ask(stack)
        assert answer.status_code == 500
        assert found.pop().attempts == 2
        assert set((await figures(stack, "opsgpt_breaker_state")).values()) == {2.0}
        await quiet(stack)


async def test_not_without_limit() -> None:
    """It counts as a retry does: where everything is slow, twice as much would not help."""
    replicas = [Upstream(after(1.0, says("slow"))) for _ in range(2)]
    route = Route(dispatch_method=IN_TURN, hedge_after=0.1)
    async with attached(replicas, route=route, retry_budget=0.1) as stack:
        began = time.monotonic()
        answers = await asyncio.gather(*(ask(stack) for _ in range(100)))
        seconds = time.monotonic() - began
        assert {answer.status_code for answer in answers} == {200}
        assert 10 <= await hedges(stack) <= 10 + 10 * (1 + seconds)
        await quiet(stack)


async def test_where_there_is_nobody_else() -> None:
    worker = FastChatWorker()
    one: dict[str, Any] = {"echo": [Upstream(after(0.8, says("alone")))]}
    async with attached(one, route=HEDGED) as stack:
        assert "alone" in (await ask(stack)).text
        async with worker.registered(stack):
            for stream in (False, True):
                texts = [(await ask(stack, stream=stream)).text for _ in range(2)]
                assert sorted("alone" in text for text in texts) == [False, True]
        assert await hedges(stack) == 0, "FastChat's protocol is another one"


async def test_a_client_that_leaves_lets_both_go() -> None:
    replicas = [Upstream(hang), Upstream(hang)]
    async with attached(replicas, route=HEDGED) as stack:
        task = asyncio.create_task(ask(stack))
        await until(lambda: all(replica.at_work for replica in replicas))
        task.cancel()
        await until(lambda: not any(replica.at_work for replica in replicas))
        await quiet(stack)
