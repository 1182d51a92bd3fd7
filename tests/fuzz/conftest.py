"""Gateways with everything switched on, in a thread of their own, so that blocking tools can ask
them: one that knows keys, and one that lets anybody of this machine in."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.worker.engine import Delta
from tests.fuzz.target import ADMIN, KEY, Target
from tests.support.engines import ScriptedEngine
from tests.support.stack import running


class Witness(ScriptedEngine):
    """An engine that remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        self.asked.append(request.messages[-1].text())
        async for delta in super().chat(request, index=index):
            yield delta


@contextmanager
def serving(**gateway: Any) -> Iterator[Target]:
    """Runs a stack in a thread."""
    ready: threading.Event = threading.Event()
    found: list[Target] = []
    end: list[Callable[[], None]] = []

    async def serve() -> None:
        engine = Witness()
        over = asyncio.Event()
        async with running({"echo": [engine]}, **gateway) as stack:
            loop = asyncio.get_running_loop()
            end.append(lambda: loop.call_soon_threadsafe(over.set))
            worker = stack.workers[0]._server
            assert worker is not None
            ports = stack.gateway.port, worker.port, stack.controller.port
            found.append(Target(*ports, engine.asked))
            ready.set()
            await over.wait()

    def run() -> None:
        try:
            uvloop.run(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="stack")
    thread.start()
    ready.wait()
    try:
        assert found, "the stack did not start"
        yield found[0]
    finally:
        for stop in end:
            stop()
        thread.join()


def _serving(folder: Path, **gateway: Any) -> AbstractContextManager[Target]:
    database = f"sqlite:///{folder / 'gateway.sqlite'}"
    return serving(database_url=database, admin_keys=(ADMIN,), **gateway)


@pytest.fixture(scope="package")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gateway whose callers need a key."""
    with _serving(tmp_path_factory.mktemp("keyed"), api_keys=(KEY,)) as target:
        yield target


@pytest.fixture(scope="package")
def unkeyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gateway that asks this machine's callers for no key."""
    with _serving(tmp_path_factory.mktemp("unkeyed")) as target:
        yield target
