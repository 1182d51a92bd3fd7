"""The table of a controller that only names one worker at a time."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev_opsgpt.gateway import fastchat_source
from dev_opsgpt.gateway.fastchat_source import FastChatController
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.routing.table import Worker
from dev_opsgpt.transport.asgi import header, read_body, send_json
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.router import Router, Routes
from dev_opsgpt.transport.server import Receive, Scope, Send, Server, bind
from dev_opsgpt.worker.runtime import WorkerOptions, WorkerRuntime
from tests.support.engines import ScriptedEngine


class World:
    """A controller that gives each of its workers in turn, and the workers themselves, told
    apart by the first step of their path."""

    def __init__(self) -> None:
        self.table: dict[str, list[str]] = {}
        self.url = ""
        self.turn = 0
        self.questions = 0
        self.dead: set[str] = set()
        self.slow: set[str] = set()
        self.credentials: dict[str, bytes | None] = {}

    def routes(self) -> Routes:
        names = ("list_models", "list_multimodal_models", "get_worker_address")
        return {f"/{name}": {"POST": getattr(self, name)} for name in names}

    def address(self, name: str) -> str:
        return f"{self.url}/{name}"

    async def list_models(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.credentials["controller"] = header(scope, b"authorization")
        await send_json(
            send, 200, {"models": sorted({m for ms in self.table.values() for m in ms})}
        )

    async def list_multimodal_models(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"models": ["sees"]})

    async def get_worker_address(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.questions += 1
        model = json.loads(await read_body(scope, receive, 1000))["model"]
        served = [name for name, models in self.table.items() if model in models]
        self.turn += 1
        found = self.address(served[self.turn % len(served)]) if served else ""
        await send_json(send, 200, {"address": found})

    async def worker(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, name, *rest = scope["path"].split("/")
        self.credentials[name] = header(scope, b"authorization")
        if name in self.slow:
            await asyncio.sleep(0.5)
        if name in self.dead or rest != ["worker_get_status"]:
            await send_json(send, 404, {"detail": "Not Found"})
            return
        status = {"model_names": self.table.get(name, ["old"]), "speed": 2, "queue_length": 7}
        await send_json(send, 200, status)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    found = World()
    server = Server(
        Router(found.routes(), fallback=found.worker), bind("127.0.0.1", 0), drain_timeout=1
    )
    await server.start()
    found.url = f"http://127.0.0.1:{server.port}"
    yield found
    await server.stop()


class Source:
    """The source with a clock of its own."""

    def __init__(self, world: World, client: Client, **options: Any) -> None:
        self.now = 0.0
        self.world = world
        self.controller = FastChatController(client, world.url, now=lambda: self.now, **options)

    async def rows(self) -> dict[str, Worker]:
        rows = await self.controller.rows()
        return {row.address.removeprefix(f"{self.world.url}/"): row for row in rows}


@pytest.fixture
async def source(world: World) -> AsyncIterator[Source]:
    async with Client() as client:
        yield Source(world, client, secret="s")


async def test_all_replicas_are_found(world: World, source: Source) -> None:
    world.table = {"one": ["a"], "two": ["a", "b"], "three": ["a", "sees"]}
    rows = await source.rows()
    assert {name: row.models for name, row in rows.items()} == {
        "one": ("a",),
        "two": ("a", "b"),
        "three": ("a", "sees"),
    }
    assert {row.kind for row in rows.values()} == {"fastchat"}
    assert [name for name, row in rows.items() if row.multimodal] == ["three"]
    row = rows["one"]
    assert (row.speed, row.queue_length, row.running, row.waiting) == (2, 7, 5, 2)


async def test_the_secret_is_for_the_controller_only(world: World, source: Source) -> None:
    world.table = {"one": ["a"]}
    await source.rows()
    assert world.credentials == {"controller": b"Bearer s", "one": None}


async def test_the_controller_is_asked_seldom_once_its_workers_are_known(
    world: World, source: Source
) -> None:
    world.table = {"one": ["a"]}
    first = await source.rows()
    asked = world.questions
    again = await source.rows()
    assert world.questions == asked
    assert again["one"].beats > first["one"].beats
    world.table["two"] = ["a"]
    source.now += fastchat_source.SEARCH_INTERVAL
    assert set(await source.rows()) == {"one", "two"}


async def test_a_worker_that_is_gone_is_gone_at_once(world: World, source: Source) -> None:
    world.table = {"one": ["a"]}
    await source.rows()
    world.dead = {"one"}
    assert await source.rows() == {}
    world.table, world.dead = {"two": ["a"]}, set()
    assert set(await source.rows()) == {"two"}


async def test_a_worker_that_the_controller_lost_is_left_out(world: World, source: Source) -> None:
    world.table = {"one": ["a"], "two": ["b"]}
    await source.rows()
    del world.table["one"]
    assert set(await source.rows()) == {"two"}


async def test_a_slow_answer_is_no_death(
    world: World, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastchat_source, "TIMEOUT", 0.2)
    world.table = {"one": ["a"]}
    await source.rows()
    world.slow = {"one"}
    assert [set(await source.rows()) for _ in range(3)] == [{"one"}, {"one"}, set()]


async def test_a_controller_that_is_away(source: Source) -> None:
    source.controller = FastChatController(Client(), "http://127.0.0.1:9")
    with pytest.raises(ApiError):
        await source.rows()


async def test_a_worker_with_openais_routes_is_asked_there(world: World, source: Source) -> None:
    """Ours, if it wants no secret; one that does is spoken to as FastChat's are."""
    workers = [
        WorkerRuntime(
            ScriptedEngine(), WorkerOptions(names=["a"], secret=secret, fastchat_clients=True)
        )
        for secret in (None, "s")
    ]
    try:
        for worker in workers:
            await worker.start()
        world.table = {worker.address: ["a"] for worker in workers}
        world.url = ""
        world.address = lambda name: name  # type: ignore[method-assign]
        rows = await source.controller.rows()
        open_, closed = (worker.address for worker in workers)
        assert {row.address: row.kind for row in rows} == {
            f"{open_}/v1": "openai",
            closed: "fastchat",
        }
    finally:
        for worker in workers:
            await worker.stop()
