"""What a client does not see: requests that another replica answers when the first one fails."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.protocol.errors import InternalError
from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.routing.breaker import BreakerOptions
from dev_opsgpt.routing.fleet import Fleet
from dev_opsgpt.routing.table import Worker
from dev_opsgpt.worker.engine import Delta, Engine
from tests.support.engines import ScriptedEngine
from tests.support.stack import running
from tests.support.upstream import (
    Behaviour,
    Call,
    Upstream,
    ask,
    attached,
    chat,
    figures,
    hang,
    quiet,
    records,
    refuses,
    reset,
    says,
    until,
)

# Turns show which replica is asked first; a breaker that never opens leaves it in the turns.
IN_TURN: dict[str, Any] = {
    "route": Route(dispatch_method="round_robin"),
    "breaker": BreakerOptions(failures=1_000_000),
}


async def breaks_off(call: Call) -> None:
    """The head of a plain answer, some of its body, and the end."""
    call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 10)
    await call.writer.drain()
    await asyncio.sleep(0.01)
    call.reset()


async def breaks_off_in_the_first_event(call: Call) -> None:
    await call.begin()
    await call.raw(b'data: {"choices"')
    await asyncio.sleep(0.01)
    call.reset()


async def closes_quietly(call: Call) -> None:
    call.writer.close()


async def is_no_http(call: Call) -> None:
    call.writer.write(b"SSH-2.0-OpenSSH\r\n")


async def says_too_much(call: Call) -> None:
    """An answer of no content, and content."""
    call.writer.write(b"HTTP/1.1 204 X\r\ncontent-length: 4\r\n\r\nmore")


FAILS: dict[str, Behaviour] = {
    "reset": reset,
    "closed": closes_quietly,
    "no http": is_no_http,
    "too much": says_too_much,
    "no status": refuses(600),
    "redirect": refuses(307, location="/elsewhere"),
    "404": refuses(404),
    "429": refuses(429, retry_after="7"),
    "500": refuses(500),
    "501": refuses(501),
    "529": refuses(529),
    "502": refuses(502),
    "503": refuses(503),
    "504": refuses(504),
}


async def test_another_replica_answers_unseen() -> None:
    bad, good = Upstream(), Upstream(says("good"))
    async with attached([bad, good], retry_budget=1.0, **IN_TURN) as stack:
        found = records(stack)
        for name, stream, behave in (
            *((name, stream, fails) for name, fails in FAILS.items() for stream in (False, True)),
            ("cut", False, breaks_off),
            ("cut", True, breaks_off_in_the_first_event),
        ):
            bad.behave = behave
            before = bad.asked
            for _ in range(2):
                answer = await ask(stack, stream=stream)
                assert answer.status_code == 200, (name, stream, answer.text)
                assert "good" in answer.text
                assert answer.text.endswith("data: [DONE]\n\n") is stream
            assert bad.asked == before + 1, "they take turns"
            assert sorted(record.attempts for record in found[-2:]) == [1, 2], (name, stream)
            assert {record.replica for record in found[-2:]} == {good.url}
            assert [(r.status, r.error) for r in found[-2:]] == [(200, None)] * 2
        assert len(found) == 2 * (len(FAILS) * 2 + 2)
        retries = await figures(stack, "opsgpt_retries_total")
        assert retries == {'{model="echo"}': len(found) // 2}
        await quiet(stack)


async def test_a_refused_connection_is_retried_and_not_tried_again_for_a_while() -> None:
    bad, good = Upstream(), Upstream()
    async with attached([bad, good], probe_interval=60.0, **IN_TURN) as stack:
        found = records(stack)
        await bad.stop()
        answers = [await ask(stack, stream=number % 2 == 0) for number in range(10)]
        assert [answer.status_code for answer in answers] == [200] * 10
        assert sorted(record.attempts for record in found) == [1] * 9 + [2]
        await bad.start()


async def test_nothing_is_retried_after_the_first_event() -> None:
    async def breaks(call: Call) -> None:
        await call.begin()
        await call.chunk("begun")
        await asyncio.sleep(0.01)
        call.reset()

    replicas = [Upstream(breaks), Upstream(breaks)]
    async with attached(replicas) as stack:
        found = records(stack)
        answer = await ask(stack, stream=True)
        first, last = answer.text.removesuffix("\n\n").split("\n\n")
        assert "begun" in first
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_disconnected"
        assert sum(replica.asked for replica in replicas) == 1
        (record,) = found
        assert (record.status, record.error) == (200, "upstream_disconnected")
        assert record.completion_tokens == 1, "what came before it is counted"


async def test_what_is_the_client_s_fault_is_asked_once() -> None:
    replicas = [Upstream(), Upstream()]
    async with attached(replicas, route=Route(fallbacks=("other",))) as stack:
        found = records(stack)
        for status in (400, 405, 413, 422):
            for replica in replicas:
                replica.behave = refuses(status)
            for stream in (False, True):
                answer = await ask(stack, stream=stream)
                assert answer.status_code == status
                assert answer.json()["error"]["code"] == f"no_{status}"
                (record,) = found
                assert (record.status, record.error, record.attempts) == (status, f"no_{status}", 1)
                found.clear()
        assert sum(replica.asked for replica in replicas) == 4 * 2


async def test_the_last_refusal_is_passed_on_as_it_came() -> None:
    replicas = [Upstream(refuses(503, retry_after="7", x_secret="1")) for _ in range(4)]
    async with attached(replicas, **IN_TURN) as stack:
        found = records(stack)
        answer = await ask(stack)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "7"
        assert answer.json()["error"]["code"] == "no_503"
        assert "x-secret" not in answer.headers
        assert [replica.asked for replica in replicas] == [1, 1, 1, 0], "two retries"
        assert [(r.status, r.error, r.attempts) for r in found] == [(503, "no_503", 3)]


async def test_no_storm_of_retries() -> None:
    replicas = [Upstream(refuses(500)) for _ in range(3)]
    async with attached(replicas, retry_budget=0.1, **IN_TURN) as stack:
        began = time.monotonic()
        answers = await asyncio.gather(*(ask(stack) for _ in range(200)))
        seconds = time.monotonic() - began
        assert [answer.status_code for answer in answers] == [500] * 200
        asked = sum(replica.asked for replica in replicas)
        # A tenth, and ten a second; without a budget there would be 600.
        assert 200 + 20 <= asked <= 200 + 20 + 10 * (1 + seconds)
        retries = await figures(stack, "opsgpt_retries_total")
        assert retries == {'{model="echo"}': asked - 200}


@pytest.mark.parametrize("stream", [False, True])
async def test_all_that_one_had_at_work_when_it_died_is_done_by_another(stream: bool) -> None:
    dies, lives = Upstream(hang), Upstream()
    async with attached([dies, lives], retry_budget=0.0, **IN_TURN) as stack:
        found = records(stack)
        asked = [asyncio.create_task(ask(stack, stream=stream)) for _ in range(100)]
        await until(lambda: dies.at_work == 50)
        await dies.stop()
        answers = await asyncio.gather(*asked)
        assert [answer.status_code for answer in answers] == [200] * 100
        assert sum(record.attempts for record in found) == 150
        await quiet(stack)
        await dies.start()


class Failing(ScriptedEngine):
    """An engine that cannot."""

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        self.served += 1
        raise InternalError("The engine is out of order.")
        yield


async def test_a_retry_waits_for_another_replica_not_for_the_one_that_failed() -> None:
    failing, busy = Failing(), ScriptedEngine()
    engines: dict[str, list[Engine]] = {"echo": [failing, busy]}
    async with running(engines, worker={"limit": 1}, **IN_TURN) as stack:
        hanging = [asyncio.create_task(ask(stack, "hang")) for _ in range(2)]
        while (await figures(stack, "opsgpt_requests_in_flight")).get(
            f'{{model="echo",worker="{stack.workers[1].address}"}}'
        ) != 2:
            await asyncio.sleep(0.02)
        before = failing.served
        waiting = asyncio.create_task(ask(stack))
        while failing.served == before:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.6)
        assert failing.served == before + 1
        for task in hanging:
            task.cancel()
        assert (await waiting).status_code == 200
        await asyncio.gather(*hanging, return_exceptions=True)
        await quiet(stack)


async def test_a_client_that_reads_nothing_holds_its_server_back() -> None:
    """Nothing piles up in the gateway; and when it reads again, nothing is missing."""
    most = 64 << 20
    event = b"data: " + b"x" * 65_528 + b"\n\n"
    sent = 0

    async def floods(call: Call) -> None:
        nonlocal sent
        await call.begin()
        while sent < most:
            await call.raw(event)
            sent += len(event)
        await call.raw(b"data: [DONE]\n\n")
        call.writer.write(b"0\r\n\r\n")

    async with (
        attached([Upstream(floods)]) as stack,
        stack.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer,
    ):
        seen = 0
        async with asyncio.timeout(30):
            while not seen or sent != seen:
                seen = sent
                await asyncio.sleep(0.2)
        assert 0 < sent < 24 << 20, "what sockets hold, and a little more"
        size = 0
        last = b""
        async for data in answer.aiter_raw():
            size += len(data)
            last = (last + data)[-14:]
        assert size == most + 14
        assert last == b"data: [DONE]\n\n"


async def test_one_that_broke_off_and_is_back_is_asked_again() -> None:
    """A worker that died and was started again is another one, where nobody told that it was gone:
    the controller may have died with it."""
    first, second = Upstream(reset), Upstream()
    async with attached([first, second], retry_budget=1.0, **IN_TURN) as stack:
        found = records(stack)
        gateway = stack.gateway._gateway
        assert gateway is not None
        fleet = gateway._fleet

        async def dies_when_the_other_is_back(call: Call) -> None:
            first.behave = says("back")
            fleet.upsert(
                [
                    msgspec.structs.replace(replica.row, beats=replica.row.beats + 1)
                    for replica in fleet.replicas()
                    if replica.address == first.url
                ]
            )
            call.reset()

        second.behave = dies_when_the_other_is_back
        answer = await ask(stack)
        assert "back" in answer.text
        assert found[0].attempts == 3
        # Without a sign of life it is left alone.
        first.behave = second.behave = reset
        assert (await ask(stack)).status_code == 502
        assert found[1].attempts == 2
        await quiet(stack)


def test_of_two_that_were_down_the_one_that_is_back_is_asked() -> None:
    fleet = Fleet()
    fleet.upsert([Worker(address=name, models=("echo",), kind="openai") for name in ("a", "b")])
    first, second = fleet.replicas()
    fleet.down(first, 0.0)
    fleet.down(second, 3.0)
    assert fleet.ready("echo", 4.0) == [first, second], "better than nobody"
    assert fleet.ready("echo", 6.0) == [first]
    assert fleet.ready("echo", 9.0) == [first, second]
