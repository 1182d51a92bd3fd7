"""A launcher on the real channel, whose models are scripted engines in this process. How long a
load takes, and what comes of it, is the test's to say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dev_opsgpt.launcher.channel import Channel, CommandFailed
from dev_opsgpt.launcher.client import Calls
from dev_opsgpt.launcher.reports import Reports
from dev_opsgpt.routing.cards import Bounds, Card, Part
from dev_opsgpt.worker.runtime import WorkerRuntime
from tests.support.engines import ScriptedEngine
from tests.support.stack import SECRET, Stack


class PlayedLauncher:
    """What it was told is in ``orders``. A load waits for ``go``; ``broken`` models do not load."""

    def __init__(self, stack: Stack, name: str, *cards: Card, bounds: Bounds | None = None) -> None:
        self.stack = stack
        self.name = name
        self.cards = list(cards)
        self.orders: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        self.go = asyncio.Event()
        self.go.set()
        self.delay = 0.0
        self.workers: dict[str, list[WorkerRuntime]] = {}
        self.engines: dict[str, ScriptedEngine] = {}
        self.coming: list[Part] = []
        self.released: list[str] = []
        self.demanded: set[str] = set()
        calls = Calls(stack.controller_url, SECRET)
        self.reports = Reports(
            calls,
            name,
            models=lambda: [card.name for card in self.cards],
            cards=lambda: self.cards,
            bounds=lambda: bounds or Bounds(),
            parts=self.parts,
            released=lambda: self.released,
        )
        self.channel = Channel(calls, self.reports, self)

    def parts(self) -> list[Part]:
        """What there is."""
        found = [
            Part(model=model, address=w.address, state="ready", demanded=model in self.demanded)
            for model, workers in self.workers.items()
            for w in workers
        ]
        return [*found, *self.coming]

    async def load_model(self, model: str, demanded: bool) -> str:
        self.orders.append(("load", model))
        part = Part(
            model=model, address="http://x", state="starting", doing="reading", fraction=0.25
        )
        self.coming.append(part)
        await self.reports.send()
        await self.go.wait()
        self.coming.remove(part)
        if model in self.broken:
            raise CommandFailed("the file is damaged")
        if demanded:
            self.demanded.add(model)
        await self.add(model)
        return "done"

    async def add(self, model: str) -> None:
        """One more replica."""
        engine = self.engines.setdefault(model, ScriptedEngine(self.delay))
        worker = await self.stack.add_worker(engine, model, launcher=self.name)
        self.workers.setdefault(model, []).append(worker)

    async def start_model(self, model: str, replicas: int | None = None) -> str:
        self.orders.append(("start", model))
        for _ in range(replicas or 1):
            await self.add(model)
        return "done"

    async def unload_model(self, model: str, address: str | None) -> str:
        self.orders.append(("unload", model))
        for worker in list(self.workers.get(model, [])):
            if address in (None, worker.address):
                assert not self.engines[model].active, "it was at work"
                await worker.stop()
                self.stack.workers.remove(worker)
                self.workers[model].remove(worker)
        return "done"

    async def stop_model(self, model: str, address: str | None) -> str:
        self.released.append(model)
        return await self.unload_model(model, address)

    def loads(self) -> list[str]:
        """The models of which a load was ordered."""
        return [model for kind, model in self.orders if kind == "load"]


def card(name: str, **fields: Any) -> Card:
    """A model that requests load."""
    return Card(**{"name": name, "names": (name,), "on_demand": True} | fields)


@asynccontextmanager
async def played(
    stack: Stack, *cards: Card, name: str = "here", bounds: Bounds | None = None
) -> AsyncIterator[PlayedLauncher]:
    """Connects a launcher, and waits until the gateway lists what it can load."""
    launcher = PlayedLauncher(stack, name, *cards, bounds=bounds)
    task = asyncio.create_task(launcher.channel.run())
    names = {n for one in cards for n in one.names if one.on_demand}
    try:
        async with asyncio.timeout(10):
            while not names <= statuses(await stack.client.get("/v1/models")).keys():
                await asyncio.sleep(0.02)
        yield launcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def statuses(answer: Any) -> dict[str, str]:
    """What ``/v1/models`` says of each model."""
    assert answer.status_code == 200, answer.text
    return {model["id"]: model["status"] for model in answer.json()["data"]}
