"""FastChat's routes of a worker on a real port."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest

from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest
from dev_opsgpt.transport.asgi import CancelOnDisconnect
from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import Server, bind
from dev_opsgpt.worker.admission import Admission
from dev_opsgpt.worker.conversation import MarkedConversation
from dev_opsgpt.worker.engine import Delta
from dev_opsgpt.worker.fastchat_surface import FastChatSurface
from tests.support.engines import ScriptedEngine
from tests.worker.test_conversation import prompt_of

GENERATE = "/worker_generate_stream"


class Worker:
    """A served surface."""

    def __init__(self, client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
        self.client = client
        self.engine = engine

    async def call(self, path: str, body: Any = None) -> Any:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        answer = await self.client.post(path, content=content)
        assert answer.status_code == 200
        assert "content-encoding" not in answer.headers
        return answer.json()

    async def frames(self, **body: Any) -> list[dict[str, Any]]:
        answer = await self.client.post(GENERATE, json=body)
        assert answer.status_code == 200
        assert answer.content.endswith(b"\0")
        found = [json.loads(one) for one in answer.content[:-1].split(b"\0")]
        assert all("error_code" in frame for frame in found)
        return found


@pytest.fixture
async def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def admission() -> Admission:
    return Admission(2, 1, 5.0)


@pytest.fixture
async def worker(engine: ScriptedEngine, admission: Admission) -> AsyncIterator[Worker]:
    surface = FastChatSurface(
        engine,
        ["tiny", "alias"],
        admission,
        MarkedConversation("secret"),
        max_body=10_000,
        silence=0.05,
    )
    app = CancelOnDisconnect(Router(surface.routes()))
    server = Server(app, bind("127.0.0.1", 0), drain_timeout=1)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
        yield Worker(client, engine)
    await server.stop()


def chat(text: str) -> dict[str, Any]:
    return {"model": "tiny", "prompt": prompt_of("be kind", [("user", text)]), "echo": False}


async def test_a_marked_prompt_is_a_chat(worker: Worker) -> None:
    frames = await worker.frames(**chat("one two three"))
    assert frames[-1]["text"] == "one two three "
    assert frames[-1]["finish_reason"] == "stop"
    assert frames[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert [f["finish_reason"] for f in frames[:-1]] == [None] * (len(frames) - 1)
    assert all(isinstance(f["usage"]["total_tokens"], int) for f in frames)


async def test_another_prompt_is_a_completion(worker: Worker) -> None:
    assert (await worker.frames(prompt="### Human: hi"))[-1]["text"] == (
        "### Human: hi<### Human: hi:0>"
    )
    plain = await worker.call("/worker_generate", {"prompt": "hi", "echo": False})
    assert (plain["text"], plain["finish_reason"], plain["error_code"]) == ("<hi:0>", "length", 0)


async def test_logprobs_of_a_completion(worker: Worker) -> None:
    frames = await worker.frames(prompt="hi", echo=False, logprobs=1)
    assert frames[-1]["logprobs"]["tokens"] == ["<hi:0>"]
    refused = await worker.frames(prompt="hi", logprobs=1)
    assert refused[0]["error_code"] == 40001


@pytest.mark.parametrize(
    ("text", "code"), [("refuse", 40303), ("break", 50001)], ids=["before", "after"]
)
async def test_errors_are_frames(worker: Worker, text: str, code: int) -> None:
    frames = await worker.frames(**chat(text))
    assert frames[-1]["error_code"] == code
    assert frames[-1]["text"]
    assert (await worker.call("/worker_generate", chat(text)))["error_code"] == code


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"prompt": 1}', b"[" * 9000, b'{"prompt": "\xff"}', b" " * 20_000]
)
@pytest.mark.parametrize("path", [GENERATE, "/worker_generate", "/count_token"])
async def test_broken_bodies_are_answered_in_fastchats_form(
    worker: Worker, path: str, body: bytes
) -> None:
    answer = await worker.client.post(path, content=body)
    assert answer.status_code == 200
    assert json.loads(answer.content.rstrip(b"\0"))["error_code"] == 40001
    assert (await worker.call("/count_token", {"prompt": "abc"}))["count"] == 3


async def test_who_waits_hears_something(worker: Worker, admission: Admission) -> None:
    async with admission.slot(), admission.slot():
        task = asyncio.create_task(worker.frames(**chat("at last")))
        async with asyncio.timeout(30):
            while not admission.waiting:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
    frames = await task
    assert len(frames) > 2
    assert (frames[0]["text"], frames[0]["error_code"]) == ("", 0)
    assert frames[-1]["text"] == "at last "


async def test_a_client_that_leaves_frees_its_slot(worker: Worker, admission: Admission) -> None:
    async with worker.client.stream("POST", GENERATE, json=chat("hang")) as answer:
        async for _ in answer.aiter_raw():
            break
    async with asyncio.timeout(30):
        await worker.engine.closed.wait()
        assert await admission.drained(5)


async def test_the_small_routes(worker: Worker) -> None:
    status = {"model_names": ["tiny", "alias"], "speed": 1, "queue_length": 0}
    assert await worker.call("/worker_get_status") == status
    assert await worker.call("/model_details", {"model": "tiny"}) == {"context_length": 4096}
    asked = {"model": "tiny", "prompt": prompt_of("s", [("user", "u")])}
    assert await worker.call("/count_token", asked) == {"count": 2, "error_code": 0}
    nothing = {"prompt": prompt_of("", [])}
    assert await worker.call("/count_token", nothing) == {"count": 0, "error_code": 0}
    conv = (await worker.call("/worker_get_conv_template", {"model": "alias"}))["conv"]
    assert (conv["name"], conv["sep_style"]) == ("alias", 2)
    assert (await worker.call("/worker_get_conv_template"))["conv"]["name"] == "tiny"


async def test_embeddings(worker: Worker) -> None:
    asked = {"model": "tiny", "input": ["a", "bc"]}
    found = await worker.call("/worker_get_embeddings", asked)
    assert found == {"embedding": [[1.0, 0.5], [2.0, 0.5]], "token_num": 7}
    packed = await worker.call("/worker_get_embeddings", asked | {"encoding_format": "base64"})
    assert struct.unpack("<2f", base64.b64decode(packed["embedding"][1])) == (2.0, 0.5)
    refused = await worker.call("/worker_get_embeddings", {"input": []})
    assert refused["error_code"] == 40001


@pytest.mark.parametrize("plain", [True, False])
async def test_stop_token_ids_reach_an_engine_that_ends_at_them(plain: bool) -> None:
    class Noting(ScriptedEngine):
        asked: ChatRequest | CompletionRequest

        def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
            self.asked = request
            return super().chat(request, index=index)

        def complete(
            self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
        ) -> AsyncGenerator[Delta, None]:
            self.asked = request
            return super().complete(request, prompt, index=index)

    class Ends(Noting):
        def ends_at(self, tokens: list[int]) -> list[int]:
            return [token for token in tokens if token < 100]

    for engine in (Ends(), Noting()):
        surface = FastChatSurface(
            engine, ["tiny"], Admission(1, 0, 5.0), MarkedConversation("secret"), max_body=10_000
        )
        server = Server(Router(surface.routes()), bind("127.0.0.1", 0), drain_timeout=1)
        await server.start()
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
                body = {"model": "tiny", "prompt": "p"} if plain else chat("hello")
                asked = {**body, "echo": False, "stop_token_ids": [7, 400]}
                answer = (await client.post("/worker_generate", json=asked)).json()
                assert answer["error_code"] == 0
        finally:
            await server.stop()
        wanted = [7] if isinstance(engine, Ends) else None
        assert engine.asked.stop_token_ids == wanted
