"""A replica that fails is left alone, and only one that fails."""

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import pytest

from dev_opsgpt.gateway import runtime
from dev_opsgpt.gateway.assembly import Gateway
from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.routing.breaker import BreakerOptions
from dev_opsgpt.worker.engine import Delta
from tests.support.engines import ScriptedEngine
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
    refuses,
    reset,
)

IN_TURN = Route(dispatch_method="round_robin")
CLOSED, HALF_OPEN, OPEN = 0.0, 1.0, 2.0


class Skips:
    """A clock that the test sets forward."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


async def states(stack: Stack) -> list[float]:
    return sorted((await figures(stack, "opsgpt_breaker_state")).values())


async def test_it_opens_tries_again_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Skips()
    monkeypatch.setattr(runtime, "Gateway", partial(Gateway, clock=clock))
    bad, good = Upstream(refuses(500)), Upstream()
    options = BreakerOptions(failures=3, open_for=600.0, open_for_most=2000.0)
    async with attached([bad, good], route=IN_TURN, breaker=options) as stack:
        for number in range(20):
            assert (await ask(stack, stream=number % 2 == 0)).status_code == 200
        assert bad.asked == 3
        assert await states(stack) == [CLOSED, OPEN]

        clock.skipped += 601
        assert await states(stack) == [CLOSED, HALF_OPEN]
        told = asyncio.Event()

        async def fails_when_told(call: Call) -> None:
            await told.wait()
            await call.status(500)

        bad.behave = fails_when_told
        asked = [asyncio.create_task(ask(stack)) for _ in range(10)]
        while sum(task.done() for task in asked) < 9:
            await asyncio.sleep(0.01)
        assert bad.asked == 4, "one request tries it"
        assert await states(stack) == [CLOSED, HALF_OPEN]
        told.set()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
        assert await states(stack) == [CLOSED, OPEN]
        for _ in range(4):
            await ask(stack)
        assert bad.asked == 4

        bad.behave = fine
        clock.skipped += 1201
        for _ in range(6):
            assert (await ask(stack)).status_code == 200
        assert bad.asked >= 6, "it has its turns again"
        assert await states(stack) == [CLOSED, CLOSED]


async def test_what_counts() -> None:
    """Its own 5xx, broken connections and silence; never a word that asks for patience."""
    counts = {"500": refuses(500), "502": refuses(502), "504": refuses(504), "401": refuses(401)}
    counts |= {"reset": reset, "hang": hang}
    counts_not = {"429": refuses(429), "503": refuses(503), "404": refuses(404)}
    replicas = {name: [Upstream(behave)] for name, behave in (counts | counts_not).items()}
    async with attached(
        replicas,
        route=Route(first_token_timeout=0.5, retries=0),
        breaker=BreakerOptions(failures=2, open_for=60.0),
    ) as stack:
        for name in replicas:
            for _ in range(3):
                assert (await ask(stack, model=name, stream=True)).status_code >= 404
        found = await figures(stack, "opsgpt_breaker_state")
        for name, (replica,) in replicas.items():
            assert found[f'{{worker="{replica.url}"}}'] == (OPEN if name in counts else CLOSED), (
                name
            )
            assert replica.asked == (2 if name in counts else 3), name
        await quiet(stack)


async def test_with_no_other_replica_the_answer_is_quick() -> None:
    (bad,) = replicas = [Upstream(refuses(500))]
    options = BreakerOptions(failures=2, open_for=60.0)
    async with attached(replicas, breaker=options) as stack:
        found = records(stack)
        for _ in range(2):
            assert (await ask(stack)).status_code == 500
        for stream in (False, True):
            answer = await ask(stack, stream=stream)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "model_unavailable"
        assert bad.asked == 2
        assert [(r.status, r.attempts) for r in found] == [(500, 1)] * 2 + [(503, 0)] * 2
        assert all(record.served == "echo" for record in found)


async def test_a_client_s_own_mistakes_never_count() -> None:
    """Thousands of them, while others are served as ever."""
    async with running(
        {"echo": [ScriptedEngine()]}, breaker=BreakerOptions(failures=1), route=Route(retries=0)
    ) as stack:
        wrong: list[dict[str, Any]] = [
            chat(temperature=5),
            chat(messages=[]),
            chat("refuse"),  # its context is too long
            chat("refuse", stream=True),
            chat(messages="x"),
        ]

        async def err(body: dict[str, Any], times: int) -> set[int]:
            path = "/v1/chat/completions"
            return {(await stack.client.post(path, json=body)).status_code for _ in range(times)}

        found = await asyncio.gather(*(err(body, 200) for body in wrong))
        assert set.union(*found) == {400}
        assert await states(stack) == [CLOSED]
        assert (await ask(stack)).status_code == 200


async def test_a_4xx_of_a_server_never_counts() -> None:
    own = [400, 402, 405, 409, 413, 422, 451]
    replicas = {str(status): [Upstream(refuses(status))] for status in own}
    async with attached(replicas, breaker=BreakerOptions(failures=1)) as stack:
        for name in replicas:
            for _ in range(3):
                assert (await ask(stack, model=name)).status_code == int(name)
        assert await states(stack) == [CLOSED] * len(own)


class Choosy(ScriptedEngine):
    """A provider's engine that refuses the client's own key."""

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        raise AuthenticationFailed("The provider of this model refused your key.")
        yield


async def test_a_client_s_wrong_key_for_a_provider_never_counts() -> None:
    options = BreakerOptions(failures=1)
    async with running({"echo": [Choosy()]}, breaker=options) as stack:
        for _ in range(3):
            answer = await stack.client.post(
                "/v1/chat/completions",
                json=chat(),
                headers={"authorization": "Bearer sk-mine"},
            )
            assert answer.status_code == 401
            assert "your key" in answer.json()["error"]["message"]
        assert await states(stack) == [CLOSED]
        assert (await ask(stack)).status_code == 502, "who has none meets the server's own"


async def test_a_stream_that_says_that_it_failed_counts() -> None:
    """Its head was a 200, and its end a proper one."""
    options = BreakerOptions(failures=2, open_for=60.0)
    async with running({"echo": [ScriptedEngine()]}, breaker=options) as stack:
        found = records(stack)
        for _ in range(2):
            answer = await ask(stack, "break", stream=True)
            assert answer.status_code == 200
            assert answer.text.count('"error"') == 1
            assert "[DONE]" not in answer.text
        assert [(r.status, r.error) for r in found] == [(200, "upstream_failed")] * 2
        assert await states(stack) == [OPEN]
