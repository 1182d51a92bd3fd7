"""fschat's gateway gives up a stream that says nothing for a while; ours keeps talking to it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import Server, bind
from dev_opsgpt.worker.admission import Admission
from dev_opsgpt.worker.conversation import MarkedConversation
from dev_opsgpt.worker.fastchat_surface import FastChatSurface
from tests.compat.fschat_env import Environment, ask, start_controller, start_gateway
from tests.support.engines import ScriptedEngine

pytestmark = pytest.mark.slow


@pytest.fixture
async def worker() -> AsyncIterator[str]:
    """A worker that thinks for some seconds about each word."""
    surface = FastChatSurface(
        ScriptedEngine(delay=4.5),
        ["slow"],
        Admission(1),
        MarkedConversation("s"),
        max_body=10_000,
        silence=0.3,
    )
    server = Server(Router(surface.routes()), bind("127.0.0.1", 0), drain_timeout=1)
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.stop()


async def test_a_slow_answer_arrives_whole(light: Environment, logs: Path, worker: str) -> None:
    controller = await asyncio.to_thread(start_controller, light, logs)
    with controller:
        # Three seconds here are the hundred that fschat's gateway waits by default.
        gateway = await asyncio.to_thread(
            start_gateway, light, logs, controller.url, environ={"FASTCHAT_WORKER_API_TIMEOUT": "3"}
        )
        with gateway:
            known = {"worker_name": worker, "check_heart_beat": False}
            await asyncio.to_thread(ask, f"{controller.url}/register_worker", known)
            chunks = await streamed(gateway.url, "one two")
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    assert text == "one two "


async def streamed(url: str, text: str) -> list[Any]:
    messages = [{"role": "user", "content": text}]
    body = {"model": "slow", "messages": messages, "stream": True}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        answer = await client.post("/v1/chat/completions", json=body)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]
