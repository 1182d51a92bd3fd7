"""Every route of the controller against every kind of caller."""

import asyncio
from typing import Any

import pytest

from dev_opsgpt.controller.app import create_app
from dev_opsgpt.controller.auth import Access
from dev_opsgpt.controller.options import ControllerOptions

from .conftest import AUTH, SECRET, Serve, StandIn

ROUTES = create_app(ControllerOptions()).state.controller.routes
ALLOWED, OTHER = "http://127.0.0.1:21009", "http://127.0.0.1:9999"
BODIES: dict[str, Any] = {
    "/register_worker": {
        "worker_name": ALLOWED,
        "check_heart_beat": True,
        "worker_status": {"model_names": ["m"], "speed": 1, "queue_length": 0},
    },
    "/receive_heart_beat": {"worker_name": ALLOWED, "queue_length": 0},
    "/get_worker_address": {"model": "m"},
    "/worker_generate_stream": {"model": "m", "prompt": "p"},
    "/deregister_worker": {"worker_name": ALLOWED},
    "/drain_worker": {"worker_name": ALLOWED},
    "/release_worker": {"model_name": "m"},
    "/load_model": {"model_name": "m"},
    "/unload_model": {"model_name": "m"},
    "/scale_model": {"model_name": "m", "replicas": 1},
    "/launchers/report": {"name": "l", "parts": []},
    "/launchers/connect": {"name": "l", "models": []},
    "/launchers/models": {"name": "l", "models": []},
    "/launchers/reply": {"id": "x", "ok": True},
}
# Who is let in learns that there is no such model.
LET_IN = {"/load_model": 404}
WITHOUT = {
    "none": {},
    "wrong": {"authorization": "Bearer wrong"},
    "prefix": {"authorization": f"Bearer {SECRET[:-1]}"},
    "empty": {"authorization": "Bearer"},
    "basic": {"authorization": f"Basic {SECRET}"},
    "not ascii": {"authorization": "Bearer schlüssel".encode()},
}
# What each exception of the configuration opens, beside the routes that are open to all.
EXCEPTIONS = {
    "no exception": ({}, set()),
    "clients": ({"fastchat_clients": True}, {Access.CLIENT}),
    "workers": ({"fastchat_workers": ("http://127.0.0.1:2100*",)}, {Access.WORKER}),
}


async def status(api: Any, route: Any, headers: Any) -> int:
    async with (
        asyncio.timeout(30),
        api.client.stream(
            route.method, api.url + route.path, json=BODIES.get(route.path), headers=headers
        ) as answer,
    ):
        if answer.status_code == 401:
            error = (await answer.aread()).decode()
            assert '"invalid_api_key"' in error
            assert SECRET not in error
            assert answer.headers["www-authenticate"] == "Bearer"
        return answer.status_code


@pytest.mark.parametrize("exception", EXCEPTIONS)
async def test_matrix(controller: Any, exception: str) -> None:
    options, opened = EXCEPTIONS[exception]
    api = await controller(**options)
    for route in ROUTES:
        let_in = LET_IN.get(route.path, 200)
        assert await status(api, route, AUTH) == let_in, route
        for name, headers in WITHOUT.items():
            may = route.access is Access.OPEN or route.access in opened
            assert await status(api, route, headers) == (let_in if may else 401), (
                route,
                name,
            )


async def test_without_a_secret_everything_is_open(controller: Any) -> None:
    api = await controller(secret=None)
    for route in ROUTES:
        assert await status(api, route, {}) == LET_IN.get(route.path, 200), route


def test_which_routes_are_open() -> None:
    access = {route.path: route.access for route in ROUTES}
    assert {path for path in access if access[path] is Access.OPEN} == {
        "/test_connection",
        "/health",
    }
    assert {path for path in access if access[path] is Access.WORKER} == {
        "/register_worker",
        "/receive_heart_beat",
    }
    assert {path for path in access if access[path] is Access.CLIENT} == {
        "/list_models",
        "/list_multimodal_models",
        "/list_language_models",
        "/get_worker_address",
        "/worker_generate_stream",
        "/worker_get_status",
    }


async def test_an_unauthenticated_registration_makes_no_call(controller: Any, serve: Serve) -> None:
    target = StandIn("m")
    address = await serve(target.app)
    api = await controller(fastchat_workers=("http://127.0.0.1:1",))
    body = {"worker_name": address, "check_heart_beat": True}
    for name in (address, "http://169.254.169.254/latest", "nonsense", address + "@127.0.0.1:1"):
        answer = await api.post("/register_worker", body | {"worker_name": name}, headers={})
        assert answer.status_code == 401, name
    answer = await api.post(
        "/receive_heart_beat", {"worker_name": address, "queue_length": 0}, headers={}
    )
    assert answer.status_code == 401
    assert target.asked == []
    assert await api.workers() == {}


async def test_an_allowed_worker_is_a_fastchat_worker_whatever_it_says(
    controller: Any, serve: Serve
) -> None:
    worker = StandIn("m")
    address = await serve(worker.app)
    api = await controller(fastchat_workers=("http://127.0.0.1:*",))
    body = {
        "worker_name": address,
        "check_heart_beat": True,
        "opsgpt": {"kind": "opsgpt", "launcher": "mine"},
    }
    answer = await api.post("/register_worker", body, headers={})
    assert (answer.status_code, answer.json()) == (200, None)
    row = (await api.workers())[address]
    assert (row["kind"], row["launcher"], row["models"]) == ("fastchat", None, ["m"])
    [asked] = worker.asked
    assert "authorization" not in asked, "it would have learnt the secret"


async def test_a_worker_with_the_secret_cannot_be_taken_over(controller: Any) -> None:
    api = await controller(fastchat_workers=("http://127.0.0.1:*",))
    await api.register(ALLOWED, "m")
    stolen = dict(BODIES["/register_worker"])
    stolen["worker_status"] = {"model_names": ["other"], "speed": 9, "queue_length": 0}
    assert (await api.post("/register_worker", stolen, headers={})).status_code == 401
    beat = {"worker_name": ALLOWED, "queue_length": 7}
    assert (await api.post("/receive_heart_beat", beat, headers={})).status_code == 401
    row = (await api.workers())[ALLOWED]
    assert (row["models"], row["queue_length"], row["kind"]) == (["m"], 0, "opsgpt")


async def test_the_controller_sends_the_secret_to_its_own_workers_only(
    controller: Any, serve: Serve
) -> None:
    ours, theirs = StandIn("m"), StandIn("m")
    api = await controller()
    for worker, extra in ((ours, {"opsgpt": {}}), (theirs, {})):
        body = {"worker_name": await serve(worker.app), "check_heart_beat": True, **extra}
        await api.call("/register_worker", body)
    assert ours.asked[0]["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in theirs.asked[0]
    await api.call("/refresh_all_workers")
    assert ours.asked[1]["authorization"] == f"Bearer {SECRET}"
    assert "authorization" not in theirs.asked[1]


def test_options_do_not_show_the_secret() -> None:
    assert SECRET not in repr(ControllerOptions(secret=SECRET))
