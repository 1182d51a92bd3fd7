"""A worker and a real controller: what the one says of itself, the other lists."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from dev_opsgpt.controller.app import create_app
from dev_opsgpt.controller.options import ControllerOptions
from dev_opsgpt.transport.server import Server, bind
from dev_opsgpt.worker.engine import Abilities
from dev_opsgpt.worker.runtime import WorkerOptions, WorkerRuntime
from tests.support.engines import ScriptedEngine

SECRET = "the cluster's secret"


@pytest.fixture
async def controller() -> AsyncIterator[str]:
    app = create_app(ControllerOptions(secret=SECRET))
    server = Server(app, bind("127.0.0.1", 0), drain_timeout=2)
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    app.state.controller.close()
    await server.stop()


async def rows(controller: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {SECRET}"}) as client:
        answer = await client.get(f"{controller}/list_workers")
    workers: list[dict[str, Any]] = answer.json()["workers"]
    return workers


async def test_a_worker_says_what_it_can_do(controller: str) -> None:
    options = WorkerOptions(names=["echo"], controller=controller, secret=SECRET, limit=3)
    engine = ScriptedEngine()
    worker = WorkerRuntime(engine, options)
    await worker.start()
    [row] = await rows(controller)
    assert (row["address"], row["limit"], row["kind"]) == (worker.address, 3, "opsgpt")
    assert (row["context_length"], row["tools"], row["vision"]) == (4096, True, False)
    assert row["json_output"] is None, "it does not say"
    await worker.stop()
    assert await rows(controller) == []


async def test_what_an_engine_learns_when_it_starts_is_told(controller: str) -> None:
    class Late(ScriptedEngine):
        abilities = Abilities()

        async def start(self) -> None:
            self.abilities = Abilities(context_length=7)

    options = WorkerOptions(names=["echo"], controller=controller, secret=SECRET)
    worker = WorkerRuntime(Late(), options)
    await worker.start()
    [row] = await rows(controller)
    assert row["context_length"] == 7
    await worker.stop()
