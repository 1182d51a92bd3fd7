"""What the controller decides on models, carried out by launchers that are played."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from dev_opsgpt.protocol.fastchat import Load
from dev_opsgpt.routing.cards import Bounds
from dev_opsgpt.routing.residency import Order, Residency
from dev_opsgpt.worker.runtime import WorkerRuntime
from tests.support.played_launcher import PlayedLauncher, card, played
from tests.support.stack import SECRET, Stack, running

ADMIN = {"authorization": f"Bearer {SECRET}"}


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(30):
            while not await holds():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"did not happen: {what}") from None


async def ask(stack: Stack, model: str, text: str = "one two") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return await stack.client.post("/v1/chat/completions", json=body)


async def call(stack: Stack, path: str, **body: Any) -> Any:
    url = f"{stack.controller_url}{path}"
    answer = await stack.client.post(url, json=body, headers=ADMIN, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def standing(stack: Stack, model: str) -> Any:
    answer = await stack.client.get(f"{stack.controller_url}/models", headers=ADMIN)
    return next(one for one in answer.json()["models"] if one["name"] == model)


def at_work(launcher: PlayedLauncher, model: str, count: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return launcher.active(model) == count

    return holds


async def test_an_eviction_takes_all_replicas_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The beats come too late to tell of the request that one of two replicas has."""

    def late(worker: WorkerRuntime) -> Load:
        return Load(0, 0, 5, 1)

    monkeypatch.setattr(WorkerRuntime, "_load", late)
    cards = [card("a", replicas=2), card("b")]
    async with running({}) as stack, played(stack, *cards, bounds=Bounds(replicas=2)) as launcher:
        launcher.delay = 0.1
        assert (await ask(stack, "a")).status_code == 200
        await stack.expect(2, "a")
        busy = asyncio.create_task(ask(stack, "a", "word " * 60))
        await until(at_work(launcher, "a", 1), "a is at work")
        other = asyncio.create_task(ask(stack, "b"))

        async def drains() -> bool:
            return (await standing(stack, "a"))["phase"] == "unloading"

        async def stays() -> bool:
            return (await standing(stack, "a"))["phase"] == "loaded"

        await until(drains, "a is to make room")
        await until(stays, "it serves on")
        assert (await busy).status_code == 200
        assert len(launcher.workers["a"]) == 2
        assert (await other).status_code == 200
        assert not launcher.workers["a"]


async def test_no_replica_goes_where_one_will_not() -> None:
    """Somebody unloads a model whose processes do not end: all of it serves on."""
    async with running({}) as stack, played(stack, card("a", replicas=2)) as launcher:
        assert (await ask(stack, "a")).status_code == 200
        launcher.stubborn.add("a")
        reply = await call(stack, "/unload_model", model_name="a")
        assert (reply["code"], "it does not end" in reply["msg"]) == (500, True)
        await stack.expect(2, "a")
        launcher.stubborn.clear()
        assert (await call(stack, "/unload_model", model_name="a"))["code"] == 200


async def test_one_thing_at_a_time_whatever_a_model_is_called() -> None:
    cards = [card("a", names=("org/alias",))]
    async with running({}) as stack, played(stack, *cards) as launcher:
        launcher.delay = 0.05
        assert (await ask(stack, "org/alias")).status_code == 200
        busy = asyncio.create_task(ask(stack, "org/alias", "word " * 40))
        await until(at_work(launcher, "a", 1), "a is at work")
        release = asyncio.create_task(call(stack, "/release_worker", model_name="org/alias"))

        async def drains() -> bool:
            return bool((await stack.client.get("/health")).json()["models"]["org/alias"] == 0)

        await until(drains, "it drains")
        unload = await call(stack, "/unload_model", model_name="a")
        assert (await busy).status_code == 200
        assert ((await release)["code"], unload["code"]) == (200, 500)
        assert "is not loaded" in unload["msg"], "by then it was released"
        assert launcher.orders == [("load", "a"), ("unload", "a")]


async def test_a_worker_that_is_away_for_a_moment_is_stopped_all_the_same() -> None:
    """As one whose vLLM is being started again: it has left the table, and its process is there."""
    async with running({}) as stack, played(stack, card("a")) as launcher:
        assert (await ask(stack, "a")).status_code == 200
        unload = asyncio.create_task(call(stack, "/unload_model", model_name="a"))

        async def drains() -> bool:
            return (await standing(stack, "a"))["phase"] == "unloading"

        await until(drains, "it drains")
        [worker] = launcher.workers["a"]
        assert worker._registration is not None
        await worker._registration.stop(returns=True)
        assert (await unload)["code"] == 200
        assert ("unload", "a") in launcher.orders


async def test_what_somebody_loads_while_a_request_does_stays() -> None:
    async with running({}) as stack, played(stack, card("a", keep_alive=0.0)) as launcher:
        launcher.go.clear()
        asked = asyncio.create_task(ask(stack, "a"))
        await until(lambda: ordered(launcher, "a"), "the load")
        found = await call(stack, "/load_model", model_name="a")
        assert found["phase"] == "loading"
        launcher.go.set()
        assert (await asked).status_code == 200

        async def known() -> bool:
            return not launcher.demanded

        await until(known, "the launcher knows")
        assert (await ask(stack, "a")).status_code == 200
        assert ("unload", "a") not in launcher.orders


async def test_what_is_not_loaded_is_taken_out_of_service() -> None:
    cards = [card("a", names=("org/alias",)), card("b")]
    async with (
        running({}) as stack,
        played(stack, *cards) as here,
        played(stack, *cards, name="there") as there,
    ):
        told = await call(stack, "/release_worker", model_name="org/alias")
        assert told == {"code": 200, "msg": "'org/alias' is out of service"}
        assert here.released == there.released == ["a"]
        found = await standing(stack, "a")
        assert (found["phase"], found["loadable"]) == ("unloaded", False)
        assert found["message"] == "out of service"
        assert (await ask(stack, "org/alias")).status_code in (404, 503)
        assert here.orders == there.orders == [("unload", "a")], "there was nothing to stop"
        again = await call(stack, "/release_worker", model_name="a")
        assert again["code"] == 200
        assert (await call(stack, "/release_worker", model_name="c")) == {
            "code": 500,
            "msg": "no worker serves the model 'c'",
        }
        found = await call(stack, "/load_model", model_name="a", seconds=20)
        assert found["phase"] == "loaded"
        await stack.expect(1, "org/alias")
        assert (await ask(stack, "org/alias")).status_code == 200


async def test_what_is_released_on_one_machine_is_loaded_on_no_other() -> None:
    cards = [card("a"), card("b")]
    async with (
        running({}) as stack,
        played(stack, *cards) as here,
        played(stack, *cards, name="there") as there,
    ):
        assert (await ask(stack, "a")).status_code == 200
        told = await call(stack, "/release_worker", model_name="a")
        assert told == {"code": 200, "msg": "'a' stopped"}
        assert here.released == there.released == ["a"]
        assert (await ask(stack, "a")).status_code in (404, 503)
        assert len(here.loads() + there.loads()) == 1
        told = await call(stack, "/release_worker", model_name="b", new_model_name="a")
        assert told == {"code": 200, "msg": "'a' started; 'b' is out of service"}


async def test_a_release_calls_off_what_waits_for_room() -> None:
    async with (
        running({}) as stack,
        played(stack, card("a"), card("b"), bounds=Bounds(replicas=1)) as launcher,
    ):
        launcher.delay = 0.05
        busy = asyncio.create_task(ask(stack, "a", "word " * 40))
        await until(at_work(launcher, "a", 1), "a is at work")
        found = await call(stack, "/load_model", model_name="b")
        assert found["phase"] == "waiting"
        assert (await call(stack, "/release_worker", model_name="b"))["code"] == 200
        assert (await standing(stack, "b"))["phase"] == "unloaded"
        assert (await busy).status_code == 200
        assert (await call(stack, "/unload_model", model_name="a"))["code"] == 200
        assert launcher.loads() == ["a"]


async def test_who_loads_what_is_being_released_has_it_when_that_is_done() -> None:
    async with running({}) as stack, played(stack, card("a")) as launcher:
        launcher.delay = 0.05
        assert (await ask(stack, "a")).status_code == 200
        busy = asyncio.create_task(ask(stack, "a", "word " * 40))
        await until(at_work(launcher, "a", 1), "a is at work")
        release = asyncio.create_task(call(stack, "/release_worker", model_name="a"))

        async def drains() -> bool:
            return (await standing(stack, "a"))["phase"] == "unloading"

        await until(drains, "it drains")
        found = await call(stack, "/load_model", model_name="a", seconds=20)
        assert found["phase"] == "loaded"
        assert (await busy).status_code == 200
        assert (await release)["code"] == 200
        assert launcher.loads() == ["a", "a"]


async def ordered(launcher: PlayedLauncher, *models: str) -> bool:
    return launcher.loads() == list(models)


async def test_what_does_not_register_is_stopped_again() -> None:
    options = {"start_timeout": 3.0}
    async with (
        running({}, controller=options) as stack,
        played(stack, card("a"), card("b"), bounds=Bounds(replicas=1)) as launcher,
    ):
        launcher.silent.add("a")
        answer = await ask(stack, "a")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "load_failed"
        assert "did not register" in answer.json()["error"]["message"]
        assert launcher.orders == [("load", "a"), ("unload", "a")]
        assert (await ask(stack, "b")).status_code == 200, "it takes no room"


async def test_a_launcher_that_was_away_has_nothing_new_to_try() -> None:
    async with running({}) as stack:
        async with played(stack, card("a")) as launcher:
            launcher.broken.add("a")
            assert (await ask(stack, "a")).status_code == 503
        async with played(stack, card("a")) as launcher:
            assert (await ask(stack, "a")).status_code == 503
            assert launcher.loads() == []
            # Other settings may be right.
            await launcher.reports.announce()
            assert (await ask(stack, "a")).status_code == 200


async def test_a_launcher_s_own_fault_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def faulty(launcher: PlayedLauncher, model: str, demanded: bool) -> str:
        raise RuntimeError("oh")

    monkeypatch.setattr(PlayedLauncher, "load_model", faulty)
    async with running({}) as stack, played(stack, card("a")):
        answer = await ask(stack, "a")
        assert answer.status_code == 503
        assert "RuntimeError: oh" in answer.json()["error"]["message"]


async def test_a_fault_in_deciding_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(residency: Residency, now: float) -> list[Order]:
        raise KeyError("oh")

    async with running({}) as stack, played(stack, card("a")):
        with monkeypatch.context() as patch:
            patch.setattr(Residency, "decide", faulty)

            async def told() -> bool:
                return "could not be decided" in caplog.text

            await until(told, "the fault is in the log")
        assert (await ask(stack, "a")).status_code == 200


async def test_memory_is_what_the_processes_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(0, 0, 5, 0)
    monkeypatch.setattr(WorkerRuntime, "_load", lambda worker: load)
    async with running({}) as stack, played(stack, card("a", size=1000)):
        assert (await standing(stack, "a"))["memory"] is None
        assert (await ask(stack, "a")).status_code == 200
        assert (await standing(stack, "a"))["memory"] is None, "the files are no figure"
        load = Load(0, 0, 5, 1, 900)

        async def known() -> bool:
            return bool((await standing(stack, "a"))["memory"] == 900)

        await until(known, "the beat has come")
