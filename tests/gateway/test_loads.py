"""Requests for models that are not loaded, through a real gateway and a real controller."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev_opsgpt.gateway import loads
from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.routing.cards import Bounds
from tests.support.engines import ScriptedEngine
from tests.support.played_launcher import PlayedLauncher, card, played, statuses
from tests.support.stack import SECRET, Stack, running

ADMIN = {"authorization": f"Bearer {SECRET}"}


async def ask(stack: Stack, model: str, **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", {})
    body = {"model": model, "messages": [{"role": "user", "content": "one two"}], **fields}
    return await stack.client.post("/v1/chat/completions", json=body, headers=headers)


async def until(holds: Any, what: str) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0.02)


async def ordered(launcher: PlayedLauncher, *models: str) -> None:
    async def holds() -> bool:
        return launcher.loads() == list(models)

    await until(holds, f"loads of {models}")


def error_of(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]
    return found


def events(text: str) -> list[Any]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments come soon, and often."""
    monkeypatch.setattr(loads, "FIRST_COMMENT", 0.05)
    monkeypatch.setattr(loads, "COMMENTS", 0.05)


async def test_many_requests_wait_for_one_load() -> None:
    async with running({}) as stack, played(stack, card("a"), card("b")) as launcher:
        assert statuses(await stack.client.get("/v1/models")) == {"a": "unloaded", "b": "unloaded"}
        launcher.go.clear()
        asked = [asyncio.create_task(ask(stack, "a")) for _ in range(20)]
        await ordered(launcher, "a")

        async def told() -> bool:
            model = (await stack.client.get("/v1/models/a")).json()
            progress = model.get("progress", {})
            return model["status"] == "loading" and progress.get("fraction") == 0.25

        await until(told, "progress")
        assert not any(task.done() for task in asked)
        launcher.go.set()
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        assert launcher.orders == [("load", "a")]
        assert statuses(await stack.client.get("/v1/models"))["a"] == "loaded"
        assert (await ask(stack, "nobody")).status_code == 404


async def test_a_stream_gets_comments_until_its_model_is_loaded(soon: None) -> None:
    async with running({}) as stack, played(stack, card("a")) as launcher:
        launcher.go.clear()
        body = {"model": "a", "messages": [{"role": "user", "content": "x y"}], "stream": True}
        async with stack.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith(": loading a")
            async for line in lines:
                if line == ": loading a: reading, 25%":
                    break
            launcher.go.set()
            rest = [line async for line in lines]
        text = "\n".join(rest)
        found = events(text)
        assert found[-1] == "[DONE]"
        said = "".join(one["choices"][0]["delta"].get("content") or "" for one in found[:-1])
        assert said == "x y "


async def test_a_quick_load_shows_no_comment() -> None:
    async with running({}) as stack, played(stack, card("a")):
        answer = await ask(stack, "a", stream=True)
        assert answer.text.startswith("data: ")


async def test_a_failed_load_is_told_to_each_and_not_tried_again(soon: None) -> None:
    async with running({}) as stack, played(stack, card("a")) as launcher:
        launcher.broken.add("a")
        launcher.go.clear()
        plain = [asyncio.create_task(ask(stack, "a")) for _ in range(3)]
        stream = asyncio.create_task(ask(stack, "a", stream=True))
        await ordered(launcher, "a")
        await asyncio.sleep(0.2)
        launcher.go.set()
        for answer in await asyncio.gather(*plain):
            assert answer.status_code == 503
            assert error_of(answer)["code"] == "load_failed"
            assert "the file is damaged" in error_of(answer)["message"]
            assert int(answer.headers["retry-after"]) >= 1
        streamed = await stream
        assert streamed.status_code == 200
        assert streamed.text.startswith(": loading a")
        (event,) = events(streamed.text)
        assert event["error"]["code"] == "load_failed"
        for _ in range(3):
            assert (await ask(stack, "a")).status_code == 503
        assert (await ask(stack, "a", stream=True)).status_code == 503
        assert launcher.loads() == ["a"]

        async def shown() -> bool:
            return statuses(await stack.client.get("/v1/models"))["a"] == "failed"

        await until(shown, "the listing tells")


async def test_who_hangs_up_leaves_the_load_going() -> None:
    async with running({}) as stack, played(stack, card("a")) as launcher:
        launcher.go.clear()
        asked = asyncio.create_task(ask(stack, "a"))
        await ordered(launcher, "a")
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        launcher.go.set()
        await stack.expect(1, "a")
        assert (await ask(stack, "a")).status_code == 200
        assert launcher.loads() == ["a"]


async def test_patience_has_an_end_and_the_load_goes_on(soon: None) -> None:
    route = Route(load_timeout=1.0)
    async with running({}, route=route) as stack, played(stack, card("a")) as launcher:
        launcher.go.clear()
        answer = await ask(stack, "a")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "model_loading")
        streamed = await ask(stack, "a", stream=True)
        assert events(streamed.text)[0]["error"]["code"] == "model_loading"
        # A client's own patience too.
        asked = {"stream": True, "headers": {"x-request-timeout": "0.8"}}
        cut = await ask(stack, "a", **asked)
        assert events(cut.text)[0]["error"]["code"] == "request_timeout"
        launcher.go.set()
        await stack.expect(1, "a")
        assert launcher.loads() == ["a"]


async def test_without_room_a_request_waits_and_is_told() -> None:
    route = Route(queue_timeout=1.5)
    cards = [card("a"), card("b")]
    async with (
        running({}, route=route) as stack,
        played(stack, *cards, bounds=Bounds(replicas=1)) as launcher,
    ):
        launcher.delay = 0.1
        assert (await ask(stack, "a")).status_code == 200
        words = {"messages": [{"role": "user", "content": "word " * 60}]}
        busy = asyncio.create_task(ask(stack, "a", **words))

        async def at_work() -> bool:
            return launcher.active("a") == 1

        await until(at_work, "a is at work")
        answer = await ask(stack, "b")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "no_room_for_model")
        assert "a are in use" in error_of(answer)["message"]
        assert answer.headers["retry-after"]
        assert (await busy).status_code == 200
        assert launcher.loads() == ["a"]
        # Once nobody is at work there, it goes.
        async with asyncio.timeout(30):
            while (await ask(stack, "b")).status_code != 200:
                pass
        assert launcher.orders == [("load", "a"), ("unload", "a"), ("load", "b")]


async def test_a_fallback_that_is_ready_answers_while_the_model_is_loaded() -> None:
    routes = {"a": Route(fallbacks=("echo", "b")), "b": Route(), "c": Route(fallbacks=("b",))}
    async with (
        running({"echo": [ScriptedEngine()]}, routes=routes) as stack,
        played(stack, card("a"), card("b"), card("c")) as launcher,
    ):
        launcher.go.clear()
        answer = await ask(stack, "a")
        assert answer.status_code == 200
        assert answer.json()["model"] == "echo"
        await ordered(launcher, "a")
        launcher.go.set()
        await stack.expect(1, "a")
        assert (await ask(stack, "a")).json()["model"] == "a"
        # One that is not loaded either is loaded where the model itself cannot be.
        launcher.broken.add("c")
        assert (await ask(stack, "c")).json()["model"] == "b"
        assert launcher.loads() == ["a", "c", "b"]


async def test_a_key_loads_what_it_may_use(tmp_path: Path) -> None:
    options = {"database_url": f"sqlite:///{tmp_path / 'keys.db'}"}
    async with running({}, **options) as stack, played(stack, card("a"), card("b")) as launcher:
        made = await stack.client.post("/admin/keys", json={"models": ["b"]}, headers=ADMIN)
        key = {"authorization": f"Bearer {made.json()['key']}"}
        assert (await ask(stack, "a")).status_code == 401
        assert (await ask(stack, "a", headers=key)).status_code == 403
        assert (await ask(stack, "b", headers=key)).status_code == 200
        assert launcher.loads() == ["b"]


async def test_a_released_model_is_loaded_by_no_request() -> None:
    async with running({}) as stack, played(stack, card("a")) as launcher:
        assert (await ask(stack, "a")).status_code == 200
        release = {"model_name": "a"}
        url = f"{stack.controller_url}/release_worker"
        done = await stack.client.post(url, json=release, headers=ADMIN)
        assert done.json()["code"] == 200

        async def refused() -> bool:
            return (await ask(stack, "a")).status_code in (404, 503)

        await until(refused, "it is gone")
        assert "a" not in statuses(await stack.client.get("/v1/models"))
        assert launcher.loads() == ["a"]


async def test_a_model_that_is_being_stopped_is_not_waited_for(soon: None) -> None:
    async with running({}) as stack, played(stack, card("a")) as launcher:
        launcher.delay = 0.3
        assert (await ask(stack, "a")).status_code == 200
        # It drains for as long as this one takes.
        body = {"model": "a", "messages": [{"role": "user", "content": "x " * 10}], "stream": True}
        async with stack.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            url = f"{stack.controller_url}/release_worker"
            release = asyncio.create_task(
                stack.client.post(url, json={"model_name": "a"}, headers=ADMIN)
            )

            async def drains() -> bool:
                return (await stack.client.get("/health")).json()["models"].get("a") == 0

            await until(drains, "it drains")
            refused = await ask(stack, "a", stream=True)
            assert (refused.status_code, error_of(refused)["code"]) == (503, "model_unavailable")
            assert [line async for line in lines if line][-1] == "data: [DONE]"
        assert (await release).json()["code"] == 200


async def test_a_controller_that_knows_nothing_yet_is_given_time() -> None:
    async with running({}) as stack:
        async with played(stack, card("a")):
            pass
        # The launcher has left, as after the start of a new controller.
        assert statuses(await stack.client.get("/v1/models")) == {"a": "unloaded"}
        asked = asyncio.create_task(ask(stack, "a"))
        await asyncio.sleep(0.3)
        async with played(stack, card("a")):
            assert (await asked).status_code == 200


async def test_the_admin_api_of_models(tmp_path: Path) -> None:
    options = {"database_url": f"sqlite:///{tmp_path / 'keys.db'}"}
    cards = [card("a", names=("a", "org/alias")), card("b")]
    async with running({}, **options) as stack, played(stack, *cards) as launcher:

        async def call(what: str, model: str, **fields: Any) -> Any:
            body = {"model": model, **fields}
            found = await stack.client.post(f"/admin/models/{what}", json=body, headers=ADMIN)
            return found.status_code, found.json()

        async def listing(**query: str) -> Any:
            found = await stack.client.get("/admin/models", params=query, headers=ADMIN)
            return found.status_code, found.json()

        assert (await stack.client.get("/admin/models")).status_code == 401
        assert (await stack.client.post("/admin/models/load")).status_code == 401
        status, found = await listing()
        assert status == 200
        states = [(one["name"], one["state"]) for one in found["data"]]
        assert states == [("a", "unloaded"), ("b", "unloaded")]
        launcher.go.clear()
        status, found = await call("load", "org/alias", seconds=0.5)
        assert (status, found["state"]) == (200, "loading")
        assert found["progress"]["phase"] == "reading"
        launcher.go.set()
        status, found = await call("load", "a", seconds=20)
        assert (status, found["state"], found["replicas"]) == (200, "loaded", 1)
        status, found = await call("scale", "a", replicas=3)
        assert (status, found["replicas"]) == (200, 3)
        status, found = await call("scale", "a", replicas=1)
        assert (status, found["replicas"]) == (200, 1)
        status, found = await listing(model="org/alias")
        assert (status, [one["replicas"] for one in found["data"]]) == (200, [1])
        status, found = await call("unload", "a")
        assert (status, found["state"]) == (200, "unloaded")
        status, found = await call("unload", "a")
        assert (status, found["error"]["code"]) == (409, "conflict")
        status, found = await call("scale", "a", replicas=0)
        assert (status, found["error"]["param"]) == (400, "replicas")
        for what, fields in (("load", {}), ("unload", {}), ("scale", {"replicas": 1})):
            status, found = await call(what, "x", **fields)
            assert (status, found["error"]["code"]) == (404, "model_not_found"), what
            assert found["error"]["param"] == "model"
        status, found = await listing(model="x")
        assert (status, found["error"]["param"]) == (404, "model")


async def test_two_launchers_share_the_work() -> None:
    bounds = Bounds(replicas=1)
    async with (
        running({}) as stack,
        played(stack, card("a"), card("b"), bounds=bounds) as here,
        played(stack, card("a"), card("b"), name="there", bounds=bounds) as there,
    ):
        answers = await asyncio.gather(*(ask(stack, model) for model in "abab"))
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(here.loads() + there.loads()) == ["a", "b"]
        assert len(here.loads()) == 1, "each has room for one"
