"""Other options for a controller that runs: its table stays."""

from typing import Any

import pytest

from dev_opsgpt.controller.app import Controller
from dev_opsgpt.controller.options import AttachedServer, ControllerOptions

from .conftest import SECRET, Serve, StandIn, eventually
from .test_probe import OpenAIServer

WORKER = "http://127.0.0.1:9"


def reload(api: Any, **options: Any) -> None:
    controller: Controller = api.app.state.controller
    controller.reload(ControllerOptions(secret=SECRET, **options))


async def register(api: Any, address: str) -> int:
    body = {
        "worker_name": address,
        "check_heart_beat": True,
        "worker_status": {"model_names": ["m"], "speed": 1, "queue_length": 0},
    }
    answer = await api.post("/register_worker", body, headers={})
    return int(answer.status_code)


async def test_policy_changes_and_the_table_stays(controller: Any) -> None:
    api = await controller(dispatch_method="round_robin")
    for address in ("http://a:1", "http://b:1"):
        await api.register(address, "m")
    reload(api, dispatch_method="shortest_queue")
    assert list(await api.workers()) == ["http://a:1", "http://b:1"]
    await api.call("/receive_heart_beat", {"worker_name": "http://a:1", "queue_length": 9})
    found = {(await api.call("/get_worker_address", {"model": "m"}))["address"] for _ in range(4)}
    assert found == {"http://b:1"}


async def test_workers_without_the_secret_are_let_in_and_kept_out(
    controller: Any, serve: Serve
) -> None:
    address = await serve(StandIn("m").app)
    api = await controller()
    assert await register(api, address) == 401
    reload(api, fastchat_workers=(address,))
    assert await register(api, address) == 200
    reload(api)
    assert await register(api, address) == 401
    assert list(await api.workers()) == [address]


async def test_clients_without_the_secret(controller: Any) -> None:
    api = await controller()
    assert (await api.post("/list_models", headers={})).status_code == 401
    reload(api, fastchat_clients=True)
    assert (await api.post("/list_models", headers={})).status_code == 200


async def test_attached_servers_come_go_and_change(controller: Any, serve: Serve) -> None:
    first, second = OpenAIServer("a"), OpenAIServer("b")
    urls = [await serve(server.app) + "/v1" for server in (first, second)]
    api = await controller(attached=(AttachedServer("a", urls[0]),), probe_interval=0.05)
    await eventually(lambda: urls_of(api, [urls[0]]))
    reload(api, attached=(AttachedServer("a", urls[0]), AttachedServer("b", urls[1])))
    await eventually(lambda: urls_of(api, urls))
    asked = len(first.asked)
    async with api.lines("GET", "/watch") as lines:
        assert len((await lines.next())["workers"]) == 2
        reload(api, attached=(AttachedServer("c", urls[1], upstream_model="b"),))
        while not (change := await lines.told())["remove"]:
            pass
        assert change["remove"] == [{"address": urls[0], "reason": "left"}]
        if not change["upsert"]:
            change = await lines.told()
        assert change["upsert"][0]["models"] == ["c"]
    await eventually(lambda: len(second.asked) > 3)
    assert len(first.asked) <= asked + 1, "it is asked no more"
    reload(api)
    assert await api.workers() == {}


async def urls_of(api: Any, urls: list[str]) -> bool:
    return set(await api.workers()) == set(urls)


@pytest.mark.parametrize(
    "options",
    [
        {"dispatch_method": "by chance"},
        {"attached": (AttachedServer("m", "u"), AttachedServer("m", "u"))},
    ],
)
async def test_what_is_refused_changes_nothing(
    controller: Any, serve: Serve, options: dict[str, Any]
) -> None:
    url = await serve(OpenAIServer("a").app) + "/v1"
    api = await controller(attached=(AttachedServer("a", url),), probe_interval=0.05)
    await eventually(lambda: urls_of(api, [url]))
    with pytest.raises(ValueError, match=r"by chance|twice"):
        reload(api, fastchat_clients=True, **options)
    assert list(await api.workers()) == [url]
    assert (await api.post("/list_models", headers={})).status_code == 401


async def test_what_a_launcher_can_start_changes(controller: Any) -> None:
    api = await controller(start_timeout=5.0)
    await api.register("http://a:1", "m", launcher="l")
    assert await api.call("/launchers/models", {"name": "l", "models": []}) == {"exist": False}
    body = {"model_name": "m", "new_model_name": "new", "keep_origin": True}
    async with api.lines("POST", "/launchers/connect", {"name": "l", "models": ["m"]}) as lines:
        await lines.next()
        assert (await api.call("/release_worker", body))["code"] == 500
        announced = {"name": "l", "models": ["m", "new"]}
        assert await api.call("/launchers/models", announced) == {"exist": True}
        assert api.app.state.controller.launchers.able("new") == "l"
