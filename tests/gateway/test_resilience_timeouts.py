"""Requests that take too long: as a whole, or to their first byte."""

import asyncio
import json
from typing import Any

import httpx

from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.routing.breaker import BreakerOptions
from tests.support.engines import ScriptedEngine
from tests.support.fastchat_worker import FastChatWorker
from tests.support.stack import Stack, running
from tests.support.upstream import (
    Call,
    Upstream,
    ask,
    attached,
    chat,
    figures,
    fine,
    hang,
    quiet,
    records,
    says,
)

IN_TURN: dict[str, Any] = {
    "breaker": BreakerOptions(failures=1_000_000),
    "retry_budget": 1.0,
}


async def in_time(stack: Stack, text: str, wanted: str, **fields: Any) -> httpx.Response:
    """Asks with the header by which a client sets its own time."""
    return await stack.client.post(
        "/v1/chat/completions",
        json=chat(text, **fields),
        headers={"x-request-timeout": wanted},
    )


def last_error(answer: httpx.Response) -> Any:
    events = answer.text.removesuffix("\n\n").split("\n\n")
    assert not any("[DONE]" in event for event in events)
    return json.loads(events[-1].removeprefix("data: "))["error"]


async def test_of_a_whole_request() -> None:
    engine = ScriptedEngine(0.05)
    routes = {"echo": Route(request_timeout=2.0)}
    async with running({"echo": [engine]}, routes=routes) as stack:
        found = records(stack)
        assert (await ask(stack, "in time")).status_code == 200
        plain = await ask(stack, "hang")
        assert plain.status_code == 504
        assert plain.json()["error"]["code"] == "request_timeout"
        await asyncio.wait_for(engine.closed.wait(), 30)
        engine.closed.clear()

        streamed = await ask(stack, "hang", stream=True)
        assert streamed.status_code == 200
        assert "hang" in streamed.text
        assert last_error(streamed)["code"] == "request_timeout"
        await asyncio.wait_for(engine.closed.wait(), 30)

        for wanted, seconds in (("0.2", "0.2"), ("1e-1", "0.1"), ("60", "2")):
            answer = await in_time(stack, "hang", wanted)
            assert answer.status_code == 504
            assert f"within {seconds} seconds" in answer.json()["error"]["message"]
        statuses = [(r.status, r.error) for r in found]
        assert statuses[0] == (200, None)
        assert statuses[1:] == [
            (504, "request_timeout"),
            (200, "request_timeout"),
            *[(504, "request_timeout")] * 3,
        ]
        assert found[2].completion_tokens, "what was passed on is counted"
        await quiet(stack)
        assert engine.active == 0
        assert set((await figures(stack, "opsgpt_breaker_state")).values()) == {0.0}


async def test_a_client_s_wrong_time_is_told() -> None:
    async with running({"echo": [ScriptedEngine()]}) as stack:
        for wrong in ("0", "-1", "nan", "inf", "1e999", "soon", "", "5s", "1,5"):
            answer = await in_time(stack, "one", wrong)
            assert answer.status_code == 400, wrong
            assert answer.json()["error"]["param"] == "x-request-timeout"
        assert (await in_time(stack, "one", "5")).status_code == 200
        assert (await in_time(stack, "hang", "0.1", stream=True)).status_code in (200, 504)


async def test_a_time_that_ends_while_it_waits_for_a_retry_or_in_line() -> None:
    engine = ScriptedEngine()
    async with running({"echo": [engine]}, worker={"limit": 1}) as stack:
        hanging = [asyncio.create_task(ask(stack, "hang")) for _ in range(2)]
        while not engine.active:
            await asyncio.sleep(0.01)
        answer = await in_time(stack, "one", "0.2")
        assert answer.status_code == 504
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        await quiet(stack)


async def test_of_the_first_byte() -> None:
    """Another replica is asked; for streams only: a plain answer has its first byte when all of it
    is there."""
    slow, good = Upstream(), Upstream(says("good"))
    route = Route(dispatch_method="round_robin", first_token_timeout=1.0)

    async def head_only(call: Call) -> None:
        await call.begin()
        await call.hang()

    async def pauses(call: Call) -> None:
        await call.begin()
        await call.chunk("slow")
        await asyncio.sleep(1.2)
        await call.end()

    async def plain_and_slow(call: Call) -> None:
        await asyncio.sleep(1.2)
        await call.say("slow")

    async with attached([slow, good], route=route, **IN_TURN) as stack:
        found = records(stack)
        for behave in (hang, head_only):
            slow.behave = behave
            for _ in range(2):
                answer = await ask(stack, stream=True)
                assert "good" in answer.text
                assert answer.text.endswith("data: [DONE]\n\n")
            assert sorted(record.attempts for record in found[-2:]) == [1, 2]
            assert slow.calls[-1].left, "the slow one is let go"
        slow.behave = pauses
        texts = [(await ask(stack, stream=True)).text for _ in range(2)]
        assert sorted("slow" in text for text in texts) == [False, True]
        assert all(text.endswith("data: [DONE]\n\n") for text in texts)
        slow.behave = plain_and_slow
        texts = [(await ask(stack)).text for _ in range(2)]
        assert sorted("slow" in text for text in texts) == [False, True]
        assert {(r.status, r.error) for r in found} == {(200, None)}
        await quiet(stack)


async def test_where_no_replica_has_a_first_byte() -> None:
    replicas = [Upstream(hang), Upstream(hang)]
    servers = {"echo": replicas, "other": [Upstream(says("other"))]}
    routes = {
        "echo": Route(first_token_timeout=0.1),
        "smart": Route(fallbacks=("echo", "other")),
    }
    async with attached(servers, routes=routes, **IN_TURN) as stack:
        answer = await ask(stack, stream=True)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "first_token_timeout"
        assert [replica.asked for replica in replicas] == [1, 1]
        assert "other" in (await ask(stack, model="smart", stream=True)).text


async def test_a_silent_server_is_left_after_the_read_timeout() -> None:
    """Plain requests too; nothing of an answer has been sent."""
    silent, good = Upstream(hang), Upstream(says("good"))
    route = Route(dispatch_method="round_robin")
    async with attached([silent, good], route=route, read_timeout=1.0, **IN_TURN) as stack:
        found = records(stack)
        answers = await asyncio.gather(*(ask(stack) for _ in range(6)))
        assert all("good" in answer.text for answer in answers)
        assert sorted(record.attempts for record in found) == [1, 1, 1, 2, 2, 2]
        await quiet(stack)


async def test_a_slow_replica_s_time_is_not_another_s() -> None:
    """What was lost with one that failed says nothing of how quick the next one is."""
    slow, good = Upstream(hang), Upstream(fine)
    route = Route(dispatch_method="round_robin", first_token_timeout=2.0)
    async with attached([slow, good], route=route, **IN_TURN) as stack:
        for _ in range(2):
            await ask(stack, stream=True)
        gateway = stack.gateway._gateway
        assert gateway is not None
        known = {one.address: one.first_token for one in gateway._fleet.replicas()}
        assert known[slow.url] is None
        assert known[good.url] is not None
        assert known[good.url] < 2.0


async def test_of_a_worker_in_fastchat_s_protocol() -> None:
    worker = FastChatWorker()
    worker.delay = 3.0
    routes = {"echo": Route(first_token_timeout=1.5, fallbacks=("other",))}
    async with (
        running({"other": [ScriptedEngine()]}, routes=routes) as stack,
        worker.registered(stack),
    ):
        found = records(stack)
        answer = await ask(stack, "from another", stream=True)
        assert "from " in answer.text
        assert found.pop().served == "other"
        worker.delay = 0.6
        worker.fails = True
        answer = await ask(stack, stream=True)
        assert "fine" in answer.text, "only its first word had to be in time"
        record = found.pop()
        assert (record.served, record.status) == ("echo", 200)
        assert record.error == last_error(answer)["code"]
        await quiet(stack)
