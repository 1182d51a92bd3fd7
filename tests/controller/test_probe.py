"""Attached OpenAI-compatible servers: found, named, lost and found again."""

from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from dev_opsgpt.controller.options import AttachedServer
from dev_opsgpt.controller.probe import by_url, upstream_name

from .conftest import Api, Serve, eventually

KEY = "sk-attached"


class OpenAIServer:
    def __init__(self, *models: str) -> None:
        self.models = models
        self.healthy = True
        self.asked: list[str | None] = []
        self.app = FastAPI()
        self.app.add_api_route("/v1/models", self.listing)

    async def listing(self, request: Request) -> Response:
        self.asked.append(request.headers.get("authorization"))
        body = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        return JSONResponse(body, 200 if self.healthy else 500)


async def rows(api: Api) -> list[dict[str, Any]]:
    return list((await api.workers()).values())


async def test_from_healthy_to_unhealthy_and_back(controller: Any, serve: Serve) -> None:
    server = OpenAIServer("big-model", "other")
    url = await serve(server.app) + "/v1"
    attached = (
        AttachedServer("mine", url, upstream_model="big-model", api_key=KEY, limit=9),
        AttachedServer("other", url, api_key=KEY),
    )
    api = await controller(attached=attached, probe_interval=0.05)
    [row] = await eventually(lambda: rows(api))
    assert (row["address"], row["kind"], row["limit"]) == (url, "openai", 9)
    assert row["models"] == ["mine", "other"]
    assert row["upstream_models"] == {"mine": "big-model", "other": "other"}
    assert server.asked[0] == f"Bearer {KEY}"
    assert KEY not in str(row)
    assert await api.call("/list_models") == {"models": []}, "it does not speak FastChat's wire"
    await api.call("/drain_worker", {"worker_name": url})
    seen = len(server.asked)
    await eventually(lambda: len(server.asked) > seen + 2)
    assert (await rows(api))[0]["draining"] is True
    await api.call("/drain_worker", {"worker_name": url, "drain": False})

    async with api.lines("GET", "/watch") as lines:
        assert (await lines.next())["workers"]
        server.healthy = False
        while not (change := await lines.told())["remove"]:
            pass
        assert change["remove"] == [{"address": url, "reason": "unhealthy"}]
        server.healthy = True
        while not (change := await lines.told())["upsert"]:
            pass
        assert change["upsert"][0]["address"] == url


async def test_one_failure_is_forgiven(controller: Any, serve: Serve) -> None:
    server = OpenAIServer("m")
    url = await serve(server.app) + "/v1"
    api = await controller(attached=(AttachedServer("m", url),), probe_interval=0.05)
    await eventually(lambda: rows(api))
    assert server.asked[0] is None
    for _ in range(3):
        seen = len(server.asked)
        server.healthy = False
        await eventually(lambda seen=seen: len(server.asked) > seen)
        server.healthy = True
        assert await rows(api)
        await eventually(lambda seen=seen: len(server.asked) > seen + 2)


async def test_a_server_that_is_not_there_hurts_nobody(controller: Any, serve: Serve) -> None:
    url = await serve(OpenAIServer("m").app) + "/v1"
    servers = (
        AttachedServer("gone", "http://127.0.0.1:9/v1"),
        AttachedServer("bad", "http://[/v1"),
        AttachedServer("m", url),
    )
    api = await controller(attached=servers, probe_interval=0.05)
    [row] = await eventually(lambda: rows(api))
    assert row["models"] == ["m"]


@pytest.mark.parametrize(
    ("server", "listed", "name"),
    [
        (AttachedServer("m", "u", upstream_model="x"), ("m", "y"), "x"),
        (AttachedServer("m", "u"), ("m", "y"), "m"),
        (AttachedServer("m", "u"), ("only",), "only"),
        (AttachedServer("m", "u"), ("x", "y"), "m"),
        (AttachedServer("m", "u"), (), "m"),
    ],
)
def test_upstream_name(server: AttachedServer, listed: tuple[str, ...], name: str) -> None:
    assert upstream_name(server, listed) == name


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="two different keys") as caught:
        by_url([AttachedServer("m", "u", api_key=KEY), AttachedServer("n", "u", api_key="x")])
    assert KEY not in str(caught.value)
    with pytest.raises(ValueError, match="attached twice"):
        by_url([AttachedServer("m", "u"), AttachedServer("m", "u")])
    assert KEY not in repr(AttachedServer("m", "u", api_key=KEY))
