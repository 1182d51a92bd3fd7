"""Controller, workers and gateway in one event loop, on real ports, speaking real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from dev_opsgpt.controller.app import create_app
from dev_opsgpt.controller.options import ControllerOptions
from dev_opsgpt.gateway.runtime import GatewayOptions, GatewayRuntime
from dev_opsgpt.transport.server import Server, bind
from dev_opsgpt.worker.engine import Engine
from dev_opsgpt.worker.runtime import WorkerOptions, WorkerRuntime
from tests.support.ports import free_ports

SECRET = "the cluster's secret"


class Stack:
    """What is running. ``url`` is the gateway's, ``client`` calls it."""

    def __init__(self) -> None:
        self.controller: Server
        self.gateway: GatewayRuntime
        self.workers: list[WorkerRuntime] = []
        self.client: httpx.AsyncClient

    @property
    def controller_url(self) -> str:
        return f"http://127.0.0.1:{self.controller.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    async def add_worker(self, engine: Engine, name: str = "echo", **options: Any) -> WorkerRuntime:
        worker = WorkerRuntime(
            engine,
            WorkerOptions(
                names=options.pop("names", [name]),
                controller=self.controller_url,
                secret=SECRET,
                drain_timeout=5.0,
                **options,
            ),
        )
        await worker.start()
        self.workers.append(worker)
        return worker

    async def expect(self, replicas: int, name: str = "echo") -> None:
        """Waits until the gateway sees so many replicas of a model."""
        async with asyncio.timeout(30):
            while (await self.client.get("/health")).json()["models"].get(name, 0) != replicas:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(
    engines: dict[str, list[Engine]],
    *,
    controller: dict[str, Any] | None = None,
    worker: dict[str, Any] | None = None,
    **gateway: Any,
) -> AsyncIterator[Stack]:
    """Runs a stack with these engines, by the names of their models."""
    stack = Stack()
    options = ControllerOptions(secret=SECRET, **(controller or {}))
    app = create_app(options)
    # A port that no outgoing connection is given: another controller may come in its place.
    stack.controller = Server(app, bind("127.0.0.1", free_ports(1)[0]), drain_timeout=1)
    await stack.controller.start()
    stack.gateway = GatewayRuntime(
        GatewayOptions(
            **{
                "port": 0,
                "controller": stack.controller_url,
                "secret": SECRET,
                "drain_timeout": 5.0,
                **gateway,
            }
        )
    )
    await stack.gateway.start()
    try:
        async with httpx.AsyncClient(base_url=stack.url, timeout=30) as client:
            stack.client = client
            for name, replicas in engines.items():
                for engine in replicas:
                    await stack.add_worker(engine, name, **(worker or {}))
                await stack.expect(len(replicas), name)
            yield stack
    finally:
        await stack.gateway.stop()
        await asyncio.gather(*(worker.stop() for worker in stack.workers))
        app.state.controller.close()
        await stack.controller.stop()
