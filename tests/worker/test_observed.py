"""A worker's logs know the request's id, and its spans continue the caller's trace."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.protocol.steps import Delta
from dev_opsgpt.transport.request_id import current
from dev_opsgpt.transport.server import Server, bind
from dev_opsgpt.transport.telemetry import Telemetry, connect
from dev_opsgpt.worker.admission import Admission
from dev_opsgpt.worker.app import create_app
from tests.support.collector import attributes, collecting
from tests.support.engines import ScriptedEngine

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"


class Listening(ScriptedEngine):
    """Notes under which request's id it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        self.ids.append(current.get())
        async for delta in super().chat(request, index=index):
            yield delta


async def no_release(request: Any) -> dict[str, Any]:
    return {}


@asynccontextmanager
async def serving(
    engine: ScriptedEngine, telemetry: Telemetry | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        engine, ["echo"], Admission(5, 5, 5.0), secret=None, release=no_release, telemetry=telemetry
    )
    server = Server(app, bind("127.0.0.1", 0))
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield client
    await server.stop()


async def ask(client: httpx.AsyncClient, text: str = "hello", **headers: str) -> httpx.Response:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], "n": 2}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/v1/chat/completions", json=body, headers=sent)


async def test_the_engine_is_called_under_the_requests_id() -> None:
    engine = Listening()
    async with serving(engine) as client:
        # One connection: what one request sets must not reach the next.
        await ask(client, x_request_id="req-1")
        await ask(client)
        await ask(client, x_request_id="no good\tid")
        await asyncio.gather(ask(client, x_request_id="req-2"), ask(client, x_request_id="req-3"))
    assert engine.ids[:6] == ["req-1"] * 2 + [""] * 4
    assert sorted(engine.ids[6:]) == ["req-2"] * 2 + ["req-3"] * 2
    assert current.get() == ""


async def test_a_span_continues_the_callers_trace() -> None:
    with collecting() as collector:
        telemetry = connect(collector.url, "opsgpt-worker")
        async with serving(ScriptedEngine(), telemetry) as client:
            parent = f"00-{TRACE_ID}-{SPAN_ID}-01"
            await ask(client, x_request_id="req-1", traceparent=parent)
            await ask(client, "refuse", traceparent=parent)
            await ask(client, "break")
            await ask(client, traceparent=parent[:-1] + "0")
            await client.get("/health")
        await asyncio.to_thread(telemetry.close)
        answered, refused, broken = await asyncio.to_thread(collector.expect, 3)
        assert collector.services == {"opsgpt-worker"}
    for span in (answered, refused):
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
        assert span.name == "POST /v1/chat/completions"
        assert span.kind == span.SPAN_KIND_SERVER
    assert attributes(answered)["opsgpt.request.id"] == "req-1"
    assert attributes(answered)["http.response.status_code"] == 200
    assert attributes(refused)["http.response.status_code"] == 400
    assert refused.status.code == refused.status.STATUS_CODE_UNSET
    assert not broken.parent_span_id
    assert broken.status.code == broken.status.STATUS_CODE_ERROR


async def test_a_client_that_leaves_ends_the_span() -> None:
    with collecting() as collector:
        telemetry = connect(collector.url, "opsgpt-worker")
        engine = ScriptedEngine()
        async with serving(engine, telemetry) as client:
            asked = asyncio.create_task(ask(client, "hang"))
            async with asyncio.timeout(30):
                while not engine.active:
                    await asyncio.sleep(0.01)
                asked.cancel()
                await engine.closed.wait()
        await asyncio.to_thread(telemetry.close)
        await asyncio.to_thread(collector.expect, 1)
