"""A launcher on the real channel, whose models are scripted engines in this process. How long a
load takes, and what comes of it, is the test's to say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import structs

from dev_opsgpt.launcher.channel import Channel, CommandFailed
from dev_opsgpt.launcher.client import Calls
from dev_opsgpt.launcher.reports import Reports
from dev_opsgpt.routing.cards import Bounds, Card, Part
from dev_opsgpt.worker.runtime import WorkerRuntime
from tests.support.engines import ScriptedEngine
from tests.support.stack import SECRET, Stack


class PlayedLauncher:
    """What it was told is in ``orders``. A load waits for ``go``; ``broken`` models do not
    load, ``stubborn`` ones do not end, ``silent`` ones never register."""

    def __init__(self, stack: Stack, name: str, *cards: Card, bounds: Bounds | None = None) -> None:
        self.stack = stack
        self.name = name
        self.cards = list(cards)
        self.orders: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        self.stubborn: set[str] = set()
        self.silent: set[str] = set()
        self.go = asyncio.Event()
        self.go.set()
        self.delay = 0.0
        self.workers: dict[str, list[WorkerRuntime]] = {}
        self.engines: dict[str, list[ScriptedEngine]] = {}
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
        self.released = [name for name in self.released if name != model]
        part = Part(
            model=model, address="http://x", state="starting", doing="reading", fraction=0.25
        )
        self.coming.append(part)
        await self.reports.send()
        await self.go.wait()
        self.coming.remove(part)
        if model in self.broken:
            raise CommandFailed("the file is damaged")
        if model in self.silent:
            self.coming.append(structs.replace(part, state="ready"))
        elif not self.workers.get(model):
            if demanded:
                self.demanded.add(model)
            for _ in range(next(card.replicas for card in self.cards if card.name == model)):
                await self.add(model)
        elif not demanded:
            self.demanded.discard(model)
        return "done"

    async def add(self, model: str) -> None:
        """One more replica."""
        engine = ScriptedEngine(self.delay)
        names = next(list(card.names) for card in self.cards if card.name == model)
        worker = await self.stack.add_worker(engine, model, launcher=self.name, names=names)
        self.engines.setdefault(model, []).append(engine)
        self.workers.setdefault(model, []).append(worker)

    def active(self, model: str) -> int:
        """How many requests its replicas have in work."""
        return sum(engine.active for engine in self.engines.get(model, []))

    async def start_model(self, model: str, replicas: int | None = None) -> str:
        self.orders.append(("start", model))
        for _ in range(replicas or 1):
            await self.add(model)
        return "done"

    async def unload_model(self, model: str, address: str | None) -> str:
        self.orders.append(("unload", model))
        self.coming = [part for part in self.coming if part.model != model]
        found = zip(self.workers.get(model, []), self.engines.get(model, []), strict=True)
        for worker, engine in list(found):
            if address in (None, worker.address):
                if model in self.stubborn:
                    raise CommandFailed("it does not end")
                assert not engine.active, "it was at work"
                await worker.stop()
                self.stack.workers.remove(worker)
                self.workers[model].remove(worker)
                self.engines[model].remove(engine)
        return "done"

    async def stop_model(self, model: str, address: str | None) -> str:
        name = next(card.name for card in self.cards if model in (card.name, *card.names))
        self.released.append(name)
        return await self.unload_model(name, address)

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
        async with asyncio.timeout(30):
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
