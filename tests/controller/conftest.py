"""Real servers on real ports: controllers, stand-in workers, launchers and attached servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from dev_opsgpt.controller.app import create_app
from dev_opsgpt.controller.options import ControllerOptions
from dev_opsgpt.transport.server import Server, bind

SECRET = "correct horse battery"
AUTH = {"authorization": f"Bearer {SECRET}"}
Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves an application and gives its URL."""
    running: list[tuple[FastAPI, Server]] = []

    async def start(app: FastAPI, port: int = 0) -> str:
        server = Server(app, bind("127.0.0.1", port), drain_timeout=2)
        await server.start()
        running.append((app, server))
        return f"http://127.0.0.1:{server.port}"

    yield start
    for app, _ in running:
        if hasattr(app.state, "controller"):
            app.state.controller.close()
    await asyncio.gather(*(server.stop() for _, server in running))


class Api:
    """A controller seen from outside."""

    def __init__(self, url: str, app: FastAPI, client: httpx.AsyncClient) -> None:
        self.url = url
        self.app = app
        self.client = client

    async def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        options.setdefault("headers", AUTH)
        return await self.client.post(self.url + path, json=body, **options)

    async def call(self, path: str, body: Any = None) -> Any:
        answer = await self.post(path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def workers(self) -> dict[str, dict[str, Any]]:
        answer = await self.client.get(self.url + "/list_workers", headers=AUTH)
        return {row["address"]: row for row in answer.json()["workers"]}

    async def register(self, address: str, *models: str, **ours: Any) -> None:
        body = {
            "worker_name": address,
            "check_heart_beat": True,
            "worker_status": {"model_names": list(models), "speed": 1, "queue_length": 0},
            "opsgpt": {"kind": "opsgpt", "limit": 4, "beat_interval": 2.0, **ours},
        }
        assert await self.call("/register_worker", body) is None

    @asynccontextmanager
    async def lines(self, method: str, path: str, body: Any = None) -> AsyncIterator["Lines"]:
        async with self.client.stream(
            method, self.url + path, json=body, headers=AUTH, timeout=None
        ) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("application/x-ndjson")
            yield Lines(answer)


class Lines:
    """The JSON lines of a streamed answer."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self, seconds: float = 30.0) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            return json.loads(await anext(self._lines))

    async def told(self, seconds: float = 30.0) -> dict[str, Any]:
        """The next line that is no ping."""
        while (line := await self.next(seconds))["type"] == "ping":
            pass
        return line


@pytest.fixture
async def controller(serve: Serve) -> AsyncIterator[Callable[..., Awaitable[Api]]]:
    """Starts a controller with the options given; with a secret unless told otherwise."""
    async with httpx.AsyncClient(timeout=20) as client:

        async def start(*, port: int = 0, clock: Any = None, **options: Any) -> Api:
            options.setdefault("secret", SECRET)
            extra = {} if clock is None else {"clock": clock}
            app = create_app(ControllerOptions(**options), **extra)
            return Api(await serve(app, port), app, client)

        yield start


class StandIn:
    """A worker that speaks FastChat's wire, with a load and a fate that the test decides."""

    def __init__(self, *models: str) -> None:
        self.models = list(models)
        self.queue = 0
        self.status_code = 200
        self.asked: list[dict[str, str]] = []
        self.generated: list[bytes] = []
        self.pieces: list[bytes] = [b'{"text":"a","error_code":0}\0']
        self.cut = False
        self.endless = False
        self.left = asyncio.Event()
        self.released: list[int] = []
        self.release_code = 200
        self.app = FastAPI()
        self.app.add_api_route("/worker_get_status", self.status, methods=["POST"])
        self.app.add_api_route("/worker_generate_stream", self.generate, methods=["POST"])
        self.app.add_api_route("/release", self.release, methods=["POST"])

    async def status(self, request: Request) -> Response:
        self.asked.append(dict(request.headers))
        body = {"model_names": self.models, "speed": 1, "queue_length": self.queue}
        return JSONResponse(body, self.status_code)

    async def generate(self, request: Request) -> Response:
        self.asked.append(dict(request.headers))
        self.generated.append(await request.body())
        return StreamingResponse(self._pieces(), self.status_code)

    async def release(self) -> Response:
        self.released.append(self.queue)
        return JSONResponse({"code": self.release_code, "msg": "done"})

    async def _pieces(self) -> AsyncIterator[bytes]:
        self.queue += 1
        try:
            for piece in self.pieces:
                yield piece
                await asyncio.sleep(0.01)
            if self.cut:
                raise ConnectionError("the worker dies here")
            while self.endless:
                yield b'{"text":"on and on","error_code":0}\0'
                await asyncio.sleep(0.01)
        finally:
            self.queue -= 1
            self.left.set()


async def eventually(holds: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Waits until a condition, plain or awaitable, holds, and gives its value."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)
