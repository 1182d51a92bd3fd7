"""FastChat's routes, reply by reply."""

import logging
from typing import Any

import pytest

from .conftest import SECRET, Serve, StandIn, eventually

A, B, C = "http://10.9.9.1:21002", "http://10.9.9.2:21002/", "http://10.9.9.3:21002"


def registration(address: str, *models: str, **more: Any) -> dict[str, Any]:
    status = {"model_names": list(models), "speed": 1, "queue_length": 0}
    return {
        "worker_name": address,
        "check_heart_beat": True,
        "worker_status": status | more.pop("status", {}),
        **more,
    }


async def test_register_list_and_find(controller: Any) -> None:
    api = await controller()
    assert await api.call("/list_models") == {"models": []}
    assert await api.call("/get_worker_address", {"model": "m"}) == {"address": ""}
    assert await api.call("/register_worker", registration(A, "m", "n")) is None
    assert await api.call("/register_worker", registration(B, "see", multimodal=True)) is None
    assert sorted((await api.call("/list_models"))["models"]) == ["m", "n", "see"]
    assert await api.call("/list_multimodal_models") == {"models": ["see"]}
    assert await api.call("/list_language_models") == {"models": ["m", "n"]}
    assert await api.call("/get_worker_address", {"model": "n"}) == {"address": A}
    assert await api.call("/get_worker_address", {"model": "see"}) == {"address": B}, "as given"
    answer = await api.client.get(api.url + "/test_connection")
    assert (answer.status_code, answer.text) == (200, '"success"')


async def test_rows_of_fastchat_workers_and_ours(controller: Any) -> None:
    api = await controller()
    await api.call("/register_worker", registration(A, "m", status={"queue_length": 7}))
    await api.register(B, "m", launcher="here", limit=3)
    rows = await api.workers()
    theirs, ours = rows[A], rows[B]
    assert (theirs["kind"], theirs["limit"], theirs["launcher"]) == ("fastchat", 5, None)
    assert (theirs["queue_length"], theirs["running"], theirs["waiting"]) == (7, 5, 2)
    assert (ours["kind"], ours["limit"], ours["launcher"]) == ("opsgpt", 3, "here")
    assert ours["upstream_models"] == {}
    assert set(ours) == {
        *("address", "models", "kind", "speed", "queue_length", "running", "waiting", "limit"),
        *("draining", "beats", "launcher", "upstream_models", "multimodal"),
        *("context_length", "tools", "vision", "json_output"),
        *("direct_url", "direct_salt", "limited"),
    }


def told(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("context_length", "tools", "vision", "json_output")}


async def test_what_workers_can_do(controller: Any) -> None:
    api = await controller()
    able = {"context_length": 8192, "tools": True, "vision": False, "json_output": None}
    await api.register(A, "m", abilities=able)
    await api.register(B, "m")
    rows = await api.workers()
    assert told(rows[A]) == able
    assert told(rows[B]) == dict.fromkeys(able), "one that says nothing is unknown"
    await api.call("/receive_heart_beat", {"worker_name": A, "queue_length": 1})
    await api.call("/drain_worker", {"worker_name": A})
    assert told((await api.workers())[A]) == able


@pytest.mark.parametrize("sees", [True, False])
async def test_what_fastchat_workers_can_do(controller: Any, sees: bool) -> None:
    api = await controller()
    await api.call("/register_worker", registration(A, "m", multimodal=sees))
    none = {"context_length": None, "tools": False, "json_output": False}
    assert told((await api.workers())[A]) == {**none, "vision": sees}


@pytest.mark.parametrize(
    "able", [{"context_length": 0}, {"context_length": "8"}, {"tools": "yes"}, [1]]
)
async def test_abilities_are_checked(controller: Any, able: Any) -> None:
    api = await controller()
    body = registration(A, "m") | {"opsgpt": {"abilities": able}}
    assert (await api.post("/register_worker", body)).status_code == 400
    assert await api.workers() == {}


async def test_a_server_beside_a_worker(controller: Any) -> None:
    api = await controller()
    direct = {"url": "http://10.0.0.1:55000", "salt": "s" * 16}
    await api.register(A, "m", direct=direct)
    row = (await api.workers())[A]
    assert (row["direct_url"], row["direct_salt"]) == (direct["url"], direct["salt"])
    await api.register(A, "m")
    assert (await api.workers())[A]["direct_url"] is None
    for wrong in ({"url": "file:///x"}, {"url": "http://u@h"}, {"salt": "short"}, {"url": ""}):
        body = registration(B, "m") | {"opsgpt": {"direct": direct | wrong}}
        assert (await api.post("/register_worker", body)).status_code == 400
    assert set(await api.workers()) == {A}


async def test_nobody_without_the_secret_names_a_server(controller: Any) -> None:
    api = await controller(fastchat_workers=("*",))
    direct = {"url": "http://10.0.0.1:55000", "salt": "s" * 16}
    body = registration(A, "m") | {"opsgpt": {"direct": direct}}
    assert (await api.post("/register_worker", body, headers={})).status_code == 200
    row = (await api.workers())[A]
    assert (row["kind"], row["direct_url"], row["direct_salt"]) == ("fastchat", None, None)


async def test_heart_beats(controller: Any) -> None:
    api = await controller()
    beat = {"worker_name": A, "queue_length": 2}
    assert await api.call("/receive_heart_beat", beat) == {"exist": False}
    await api.call("/register_worker", registration(A, "m"))
    before = (await api.workers())[A]["beats"]
    assert await api.call("/receive_heart_beat", beat) == {"exist": True}
    row = (await api.workers())[A]
    assert (row["queue_length"], row["running"], row["beats"] > before) == (2, 2, True)
    beat["load"] = {"running": 3, "waiting": 1, "limit": 3}
    await api.call("/receive_heart_beat", beat)
    row = (await api.workers())[A]
    assert (row["queue_length"], row["running"], row["waiting"], row["limit"]) == (4, 3, 1, 3)


async def test_shortest_queue_counts_dispatches_until_the_beat(controller: Any) -> None:
    api = await controller(dispatch_method="shortest_queue")
    for address in (A, B):
        await api.call("/register_worker", registration(address, "m"))

    async def ask() -> str:
        return (await api.call("/get_worker_address", {"model": "m"}))["address"]

    assert [await ask() for _ in range(4)] == [A, B, A, B]
    await api.call("/receive_heart_beat", {"worker_name": B, "queue_length": 0})
    assert [await ask() for _ in range(3)] == [B, B, A]


async def test_lottery_follows_speed(controller: Any) -> None:
    api = await controller(dispatch_method="lottery")
    await api.call("/register_worker", registration(A, "m", status={"speed": 0}))
    assert await api.call("/get_worker_address", {"model": "m"}) == {"address": ""}
    await api.call("/register_worker", registration(B, "m"))
    for _ in range(5):
        assert await api.call("/get_worker_address", {"model": "m"}) == {"address": B}


async def test_without_a_status_the_worker_is_asked(controller: Any, serve: Serve) -> None:
    worker = StandIn("m", "m", "n")
    worker.queue = 3
    address = await serve(worker.app)
    api = await controller()
    for status in (None, {}):
        body = {"worker_name": address, "check_heart_beat": True, "worker_status": status}
        assert await api.call("/register_worker", body) is None
    assert len(worker.asked) == 2
    row = (await api.workers())[address]
    assert (row["models"], row["queue_length"]) == (["m", "n"], 3)


async def test_a_worker_that_gives_no_status_is_not_registered(
    controller: Any, serve: Serve
) -> None:
    broken, nonsense = StandIn("m"), StandIn("m")
    broken.status_code = 500
    nonsense.models = [1, 2]  # type: ignore[list-item]
    api = await controller()
    for address in (await serve(broken.app), await serve(nonsense.app), "http://127.0.0.1:9"):
        body = {"worker_name": address, "check_heart_beat": True}
        assert await api.call("/register_worker", body) is None
    assert await api.workers() == {}


async def test_refresh_drops_who_does_not_answer(controller: Any, serve: Serve) -> None:
    worker = StandIn("m")
    address = await serve(worker.app)
    api = await controller()
    await api.register(address, "old", launcher="l")
    await api.register("http://127.0.0.1:9", "gone")
    assert await api.call("/refresh_all_workers") is None
    [row] = (await api.workers()).values()
    assert (row["address"], row["models"], row["kind"]) == (address, ["m"], "opsgpt")
    assert row["launcher"] == "l"


async def test_a_controller_stands_as_a_worker_of_another(controller: Any) -> None:
    low, high = await controller(), await controller()
    await low.register(A, "m", "n")
    await low.register(B, "n", "o")
    await low.call("/receive_heart_beat", {"worker_name": B, "queue_length": 3})
    status = await low.call("/worker_get_status")
    assert status == {"model_names": ["m", "n", "o"], "speed": 2, "queue_length": 3}
    assert isinstance(status["speed"], int)
    body = {"worker_name": low.url, "check_heart_beat": True, "opsgpt": {}}
    await high.call("/register_worker", body)
    assert (await high.workers())[low.url]["models"] == ["m", "n", "o"]


async def test_a_draining_worker_is_not_given_out(controller: Any) -> None:
    api = await controller()
    await api.register(A, "m")
    assert await api.call("/drain_worker", {"worker_name": A}) == {"exist": True}
    assert await api.call("/get_worker_address", {"model": "m"}) == {"address": ""}
    assert await api.call("/list_models") == {"models": []}
    assert (await api.workers())[A]["draining"] is True
    assert await api.call("/drain_worker", {"worker_name": A, "drain": False}) == {"exist": True}
    assert await api.call("/get_worker_address", {"model": "m"}) == {"address": A}
    assert await api.call("/drain_worker", {"worker_name": C}) == {"exist": False}


async def test_what_is_logged(controller: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dev_opsgpt")
    api = await controller(sweep_interval=0.05)
    await api.register(A, "m", beat_interval=0.05)
    await api.register(B, "forged\nline")
    await eventually(lambda: "expired" in caplog.text)
    await api.call("/deregister_worker", {"worker_name": B})
    await api.call("/release_worker", {"model_name": "nobody"})
    for line in (
        f"worker registered: {A} (opsgpt) serves ('m',)",
        f"worker removed: {A} (expired)",
        f"worker removed: {B} (left)",
        "release of 'nobody' failed: no worker serves the model 'nobody'",
    ):
        assert line in caplog.messages
    assert all("\n" not in message for message in caplog.messages)
    assert SECRET not in caplog.text


async def test_deregister_and_health(controller: Any) -> None:
    api = await controller()
    await api.register(A, "m", "n")
    health = (await api.client.get(api.url + "/health")).json()
    assert health == {"status": "ok", "workers": 1, "models": 2}
    assert await api.call("/deregister_worker", {"worker_name": A}) == {"exist": True}
    assert await api.call("/deregister_worker", {"worker_name": A}) == {"exist": False}
    assert await api.workers() == {}
