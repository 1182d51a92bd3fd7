"""Other models that answer when nobody can for the one that was asked for."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.routing.breaker import BreakerOptions
from dev_opsgpt.worker.engine import Abilities
from tests.support.engines import ScriptedEngine
from tests.support.fastchat_worker import FastChatWorker
from tests.support.stack import running
from tests.support.upstream import (
    Upstream,
    ask,
    attached,
    chat,
    figures,
    quiet,
    records,
    refuses,
    reset,
    says,
)

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
SEES = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *IMAGE]}]
ONCE: dict[str, Any] = {"retries": 0}


@pytest.mark.parametrize("stream", [False, True])
async def test_they_are_asked_in_their_order(stream: bool) -> None:
    servers = {name: [Upstream(says(name))] for name in ("echo", "second", "third")}
    echo, second, third = (replicas[0] for replicas in servers.values())
    routes = {
        "echo": Route(fallbacks=("gone", "second", "third"), **ONCE),
        "second": Route(fallbacks=("echo",), **ONCE),
        "third": Route(retries=0, input_price=1e6),
    }
    options = BreakerOptions(failures=1000)
    async with attached(servers, routes=routes, breaker=options) as stack:
        found = records(stack)

        async def asks(*wanted: str) -> None:
            answer = await ask(stack, stream=stream)
            assert answer.status_code == 200
            assert wanted[-1] in answer.text
            record = found.pop()
            assert (record.model, record.served) == ("echo", wanted[-1])
            assert record.attempts == len(wanted)
            assert record.replica == servers[wanted[-1]][0].url
            assert not found

        await asks("echo")
        echo.behave = refuses(500)
        await asks("echo", "second")
        assert second.calls[-1].body["model"] == "second", "it is told its own name"
        second.behave = reset
        await asks("echo", "second", "third")
        echo.behave = refuses(429, retry_after="9")
        await asks("echo", "second", "third")
        third.behave = refuses(503, retry_after="5")
        answer = await ask(stack, stream=stream)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), "the last word"
        assert found.pop().served == "echo"
        fell = await figures(stack, "opsgpt_fallbacks_total")
        assert fell == {'{from="echo",to="second"}': 4.0, '{from="second",to="third"}': 3.0}
        await quiet(stack)


async def test_a_client_s_own_mistake_is_told_by_the_model_it_asked() -> None:
    servers = {"echo": [Upstream()], "second": [Upstream()]}
    routes = {"echo": Route(fallbacks=("second",))}
    async with attached(servers, routes=routes) as stack:
        for status in (400, 413, 422):
            servers["echo"][0].behave = refuses(status)
            for stream in (False, True):
                assert (await ask(stack, stream=stream)).status_code == status
    assert servers["second"][0].asked == 0


async def test_a_name_that_only_stands_for_others() -> None:
    servers = {"second": [Upstream(says("second"))], "third": [Upstream(says("third"))]}
    routes = {"smart": Route(fallbacks=("second", "third"), **ONCE), "second": Route(**ONCE)}
    options = BreakerOptions(failures=1, open_for=60.0)
    async with attached(servers, routes=routes, breaker=options) as stack:
        found = records(stack)
        for stream in (False, True):
            answer = await ask(stack, model="smart", stream=stream)
            assert "second" in answer.text
        assert [(r.model, r.served, r.attempts) for r in found] == [("smart", "second", 1)] * 2
        servers["second"][0].behave = refuses(500)
        assert "third" in (await ask(stack, model="smart")).text
        assert "third" in (await ask(stack, model="smart")).text, "the second's breaker is open"
        servers["third"][0].behave = refuses(500)
        assert (await ask(stack, model="smart")).status_code == 500
        answer = await ask(stack, model="smart")
        assert answer.status_code == 503, "it exists, though nobody can serve it now"
        assert answer.headers["retry-after"]
        assert (await ask(stack, model="smarter")).status_code == 404


class Able(ScriptedEngine):
    """An engine that can do what it says."""

    def __init__(self, **abilities: Any) -> None:
        super().__init__()
        self.abilities = Abilities(**abilities)


NEEDS: dict[str, dict[str, Any]] = {
    "tools": {"tools": [TOOL]},
    "vision": {"messages": SEES},
    "json": {"response_format": {"type": "json_object"}},
    "length": {"max_tokens": 3000},
}


async def test_never_one_that_cannot_by_its_worker_s_word() -> None:
    engines: dict[str, Sequence[Able]] = {
        "tools": [Able(context_length=2000, tools=False, vision=True, json_output=True)],
        "vision": [Able(context_length=2000, tools=True, vision=False, json_output=True)],
        "json": [Able(context_length=2000, tools=True, vision=True, json_output=False)],
        "length": [Able(context_length=2000, tools=True, vision=True, json_output=True)],
        "able": [Able(context_length=8000, tools=True, vision=True, json_output=True)],
    }
    routes = {f"no-{name}": Route(fallbacks=(name, "able")) for name in NEEDS}
    routes |= {f"only-{name}": Route(fallbacks=(name,)) for name in NEEDS}
    async with running({k: list(v) for k, v in engines.items()}, routes=routes) as stack:
        found = records(stack)
        for name, needs in NEEDS.items():
            for stream in (False, True):
                await ask(stack, model=f"no-{name}", stream=stream)
                assert found.pop().served == name, "nothing is needed that it cannot do"
                await ask(stack, model=f"no-{name}", stream=stream, **needs)
                assert found.pop().served == "able"
                answer = await ask(stack, model=f"only-{name}", stream=stream, **needs)
                assert answer.status_code == 503
                assert found.pop().attempts == 0


async def test_never_one_that_cannot_by_the_configuration() -> None:
    names = [*NEEDS, "able"]
    servers = {name: [Upstream()] for name in names}
    cannot: dict[str, Route] = {
        "tools": Route(tools=False),
        "vision": Route(vision=False),
        "json": Route(json_output=False),
        "length": Route(context_length=2000),
    }
    routes = cannot | {f"no-{name}": Route(fallbacks=(name, "able")) for name in NEEDS}
    async with attached(servers, routes=routes) as stack:
        for name, needs in NEEDS.items():
            for asked, served in (({}, name), (needs, "able")):
                before = servers[served][0].asked
                await ask(stack, model=f"no-{name}", **asked)
                assert servers[served][0].asked == before + 1, (name, served)


async def test_of_its_replicas_only_those_that_can() -> None:
    """A model's replicas need not be alike."""
    short, long = Able(context_length=1000), Able(context_length=8000)
    routes = {"smart": Route(fallbacks=("echo",))}
    async with running({"echo": [short, long]}, routes=routes) as stack:
        answers = await asyncio.gather(
            *(ask(stack, model="smart", max_tokens=3000) for _ in range(10))
        )
        assert {answer.status_code for answer in answers} == {200}
    assert (short.served, long.served) == (0, 10)


async def test_one_that_cannot_is_nobody_to_try_again_with() -> None:
    """Retries for it would find nobody, again and again, and use up everybody's budget."""
    short, long = Able(context_length=1000), Able(context_length=8000)
    routes = {"smart": Route(fallbacks=("echo",))}
    async with running({"echo": [short, long]}, routes=routes) as stack:
        found = records(stack)
        answer = await ask(stack, "break", model="smart", max_tokens=3000)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_failed", "the answer of the one that can"
        assert [record.attempts for record in found] == [1]
        assert await figures(stack, "opsgpt_retries_total") == {}
    assert (short.served, long.served) == (0, 1)


async def test_a_worker_in_fastchat_s_protocol_is_told_its_own_name() -> None:
    worker = FastChatWorker()
    routes = {"smart": Route(fallbacks=("echo",))}
    async with running({}, routes=routes) as stack, worker.registered(stack):
        for stream in (False, True):
            answer = await ask(stack, model="smart", stream=stream)
            assert answer.status_code == 200
            assert "fine" in answer.text
        asked = [body for path, body in worker.asked if path == "/worker_generate_stream"]
        assert [body["model"] for body in asked] == ["echo"] * 2


async def test_such_a_name_is_ours_on_the_voice_route_too() -> None:
    """The catch-all upstream is for names that nobody here knows."""
    routes = {"smart": Route(fallbacks=("echo",))}
    url = "http://127.0.0.1:9/v1"
    async with running({"echo": [ScriptedEngine()]}, routes=routes, llm_base_url=url) as stack:
        headers = {"authorization": "Bearer sk-own"}
        for model, status in (("smart", 200), ("echo", 200), ("unknown", 502)):
            answer = await stack.client.post(
                "/chat/completions", json=chat(model=model), headers=headers
            )
            assert answer.status_code == status, model
