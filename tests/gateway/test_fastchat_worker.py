"""OpenAI's dialect in, FastChat's protocol out: over real HTTP, by a worker that follows a script
and by our own worker's FastChat routes."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev_opsgpt.gateway.fastchat_worker import FastChatWorkers
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.routing.table import Worker
from dev_opsgpt.transport.asgi import CancelOnDisconnect, read_body, send_body, send_json
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.errors import ConnectFailed
from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import App, Receive, Scope, Send, Server, bind
from dev_opsgpt.worker.runtime import WorkerOptions, WorkerRuntime
from tests.support.engines import ScriptedEngine

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
CONV = {
    "name": "x",
    "system_template": "{system_message}",
    "system_message": "",
    "roles": ["U", "A"],
    "messages": [],
    "offset": 0,
    "sep_style": 1,
    "sep": "|",
    "sep2": None,
    "stop_str": "END",
    "stop_token_ids": None,
}


class Script:
    """A FastChat worker: counts a token a word, sends ``frames``, remembers what was asked."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = [{"text": "a", "error_code": 0}]
        self.asked: list[tuple[str, Any]] = []
        self.last = b""
        self.hangs = False
        self.hanging = asyncio.Event()
        self.left = asyncio.Event()
        self.missing: set[str] = set()
        self.replies: dict[str, Any] = {
            "/worker_get_conv_template": {"conv": CONV},
            "/model_details": {"context_length": 20},
            "/worker_get_embeddings": {"embedding": [[1.0, 0.5]], "token_num": 2},
        }

    def app(self) -> App:
        paths = ("/worker_generate_stream", "/count_token", *self.replies)
        return CancelOnDisconnect(Router({path: {"POST": self.answer} for path in paths}))

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        body = json.loads(await read_body(scope, receive, 1 << 20))
        self.asked.append((path, body))
        if path in self.missing:
            await send_json(send, 404, {"detail": "Not Found"})
        elif path == "/count_token":
            await send_json(send, 200, {"count": len(body["prompt"].split()), "error_code": 0})
        elif path != "/worker_generate_stream":
            await send_json(send, 200, self.replies[path])
        elif self.hangs:
            await self.hang(send)
        else:
            frames = b"".join(json.dumps(frame).encode() + b"\0" for frame in self.frames)
            await send_body(send, 200, frames + self.last)

    async def hang(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        frame = json.dumps({"text": "a", "error_code": 0}).encode() + b"\0"
        await send({"type": "http.response.body", "body": frame, "more_body": True})
        self.hanging.set()
        try:
            await asyncio.sleep(3600)
        finally:
            self.left.set()

    def bodies(self, path: str) -> list[Any]:
        return [body for asked, body in self.asked if asked == path]


class Caught:
    """What was sent to a client."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        lines = self.body.decode().split("\n\n")
        assert lines.pop() == ""
        data = [line.removeprefix("data: ") for line in lines]
        return [one if one == "[DONE]" else json.loads(one) for one in data]


class Gateway:
    """The adapter before one worker."""

    def __init__(self, workers: FastChatWorkers, address: str) -> None:
        self.workers = workers
        self.row = Worker(address=address, models=("m",), kind="fastchat")

    async def ask(self, path: str, **body: Any) -> Caught:
        caught = Caught()
        data = json.dumps({"model": "m"} | body).encode()
        await self.workers.answer(self.row, path, data, caught.send)
        return caught

    async def chat(self, text: str = "hi", **body: Any) -> Caught:
        return await self.ask(CHAT, messages=[{"role": "user", "content": text}], **body)


@pytest.fixture
async def script() -> Script:
    return Script()


@pytest.fixture
async def clock() -> list[float]:
    return [0.0]


@pytest.fixture
async def gateway(script: Script, clock: list[float]) -> AsyncIterator[Gateway]:
    server = Server(script.app(), bind("127.0.0.1", 0), drain_timeout=1)
    await server.start()
    async with Client() as client:
        workers = FastChatWorkers(client, lambda: 1234.5, lambda: clock[0])
        yield Gateway(workers, f"http://127.0.0.1:{server.port}")
    await server.stop()


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
TWO = [
    {"text": "He", "error_code": 0, "usage": None, "finish_reason": None},
    {"text": "Hello", "error_code": 0, "usage": USAGE, "finish_reason": None},
    {"text": "Hello", "error_code": 0, "usage": USAGE, "finish_reason": "length"},
]


async def test_a_plain_chat(gateway: Gateway, script: Script) -> None:
    script.frames = TWO
    answer = (await gateway.chat(stop=["x"])).json
    assert (answer["object"], answer["created"]) == ("chat.completion", 1234)
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 5
    asked = script.bodies("/worker_generate_stream")[0]
    assert asked["prompt"] == "|U: hi|A:"
    assert (asked["stop"], asked["max_new_tokens"], asked["echo"]) == (["x", "END"], 18, False)


async def test_a_streamed_chat(gateway: Gateway, script: Script) -> None:
    script.frames = TWO
    caught = await gateway.chat(stream=True, stream_options={"include_usage": True})
    *chunks, last, done = caught.events
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("content") for delta in deltas] == ["", "He", "llo", None]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert (last["usage"]["total_tokens"], done) == (5, "[DONE]")


async def test_several_answers(gateway: Gateway, script: Script) -> None:
    script.frames = TWO
    answer = (await gateway.chat(n=3)).json
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["Hello"] * 3
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 6
    assert len(script.bodies("/count_token")) == 1


async def test_what_is_known_of_a_worker_is_kept_for_a_while(
    gateway: Gateway, script: Script, clock: list[float]
) -> None:
    for now in (0.0, 59.0, 61.0):
        clock[0] = now
        await gateway.chat()
    assert len(script.bodies("/worker_get_conv_template")) == 2
    assert len(script.bodies("/model_details")) == 2


async def test_tokens_that_the_worker_does_not_count_are_counted(
    gateway: Gateway, script: Script
) -> None:
    script.frames = [{"text": "one two three", "error_code": 0}]
    usage = (await gateway.chat()).json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2, 3)


async def test_a_prompt_that_does_not_fit(gateway: Gateway, script: Script) -> None:
    with pytest.raises(ApiError) as caught:
        await gateway.chat("word " * 30)
    assert caught.value.code == "context_length_exceeded"
    assert not script.bodies("/worker_generate_stream")


async def test_completions(gateway: Gateway, script: Script) -> None:
    script.frames = TWO
    answer = (await gateway.ask(COMPLETIONS, prompt=["a b", "c"], n=2, echo=True)).json
    assert [c["text"] for c in answer["choices"]] == ["a bHello", "a bHello", "cHello", "cHello"]
    assert answer["usage"]["prompt_tokens"] == 6
    asked = script.bodies("/worker_generate_stream")
    assert [body["prompt"] for body in asked] == ["a b", "a b", "c", "c"]
    assert asked[0]["max_new_tokens"] == 16
    assert asked[0]["stop"] == ["END"]


async def test_log_probabilities(gateway: Gateway, script: Script) -> None:
    logprobs = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5}]}
    script.frames = [{"text": "a", "error_code": 0, "logprobs": logprobs}]
    old = (await gateway.ask(COMPLETIONS, prompt="p", logprobs=1)).json["choices"][0]["logprobs"]
    assert (old["tokens"], old["token_logprobs"], old["text_offset"]) == (["a"], [-0.5], [0])
    new = (await gateway.chat(logprobs=True, top_logprobs=1)).json["choices"][0]["logprobs"]
    assert new["content"][0]["top_logprobs"][0]["logprob"] == -0.5
    script.frames = [{"text": "a", "error_code": 0, "logprobs": None}]
    with pytest.raises(ApiError) as caught:
        await gateway.chat(logprobs=True, stream=True)
    assert caught.value.param == "logprobs"


async def test_embeddings(gateway: Gateway, script: Script) -> None:
    script.replies["/worker_get_embeddings"] = {"embedding": [[1.0, 0.5]] * 4, "token_num": 2}
    answer = (await gateway.ask(EMBEDDINGS, input=["a"] * 8)).json
    assert [item["index"] for item in answer["data"]] == list(range(8))
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    asked = [body["input"] for body in script.bodies("/worker_get_embeddings")]
    assert asked == [["a"] * 4] * 2
    script.replies["/worker_get_embeddings"] = {"embedding": [[1.0, 0.5]], "token_num": 2}
    packed = (await gateway.ask(EMBEDDINGS, input="a", encoding_format="base64")).json
    assert struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"])) == (1.0, 0.5)
    with pytest.raises(ApiError):
        await gateway.ask(EMBEDDINGS, input=["a", "b"])


async def test_rerank_is_refused(gateway: Gateway) -> None:
    with pytest.raises(ApiError) as caught:
        await gateway.ask("/v1/rerank", query="a", documents=["b"])
    assert (caught.value.status, caught.value.param) == (400, "model")


async def test_a_worker_without_embeddings(gateway: Gateway, script: Script) -> None:
    script.missing = {"/worker_get_embeddings"}
    with pytest.raises(ApiError) as caught:
        await gateway.ask(EMBEDDINGS, input="a")
    assert caught.value.code == "unsupported_parameter"
    script.missing = set()
    script.replies["/worker_get_embeddings"] = {"text": "no memory", "error_code": 50002}
    with pytest.raises(ApiError) as caught:
        await gateway.ask(EMBEDDINGS, input="a")
    assert caught.value.code == "out_of_memory"


async def test_an_error_before_the_answer_has_its_status(gateway: Gateway, script: Script) -> None:
    script.frames = [{"text": "busy", "error_code": 42903}]
    for stream in (False, True):
        with pytest.raises(ApiError) as caught:
            await gateway.chat(stream=stream)
        assert (caught.value.status, caught.value.message) == (429, "busy")


async def test_an_error_in_the_answer_is_an_event(gateway: Gateway, script: Script) -> None:
    script.frames = [TWO[0], {"text": "it broke", "error_code": 50001}]
    *_, last = (await gateway.chat(stream=True)).events
    assert last["error"]["message"] == "it broke"
    with pytest.raises(ApiError):
        await gateway.chat()


@pytest.mark.parametrize("last", [b'{"text": "a"', b"\xff\0", b"[]\0"])
async def test_nonsense_is_the_workers_fault(gateway: Gateway, script: Script, last: bytes) -> None:
    script.last = last
    with pytest.raises(ApiError) as caught:
        await gateway.chat()
    assert caught.value.status == 502


@pytest.mark.parametrize("path", ["/worker_get_conv_template", "/model_details"])
async def test_a_worker_that_does_not_know_fastchat(
    gateway: Gateway, script: Script, path: str
) -> None:
    for missing, reply in (({path}, {}), (set(), {"x": 1}), (set(), [])):
        script.missing, script.replies[path] = missing, reply
        with pytest.raises(ApiError):
            await gateway.chat()


async def test_a_request_is_checked_before_the_worker_is_asked(
    gateway: Gateway, script: Script
) -> None:
    with pytest.raises(ApiError) as caught:
        await gateway.chat(seed=1)
    assert caught.value.param == "seed"
    with pytest.raises(ApiError):
        await gateway.ask("/v1/other")
    assert script.asked == []


async def test_a_client_that_leaves_ends_the_workers_work(gateway: Gateway, script: Script) -> None:
    script.hangs = True
    task = asyncio.create_task(gateway.chat(stream=True))
    async with asyncio.timeout(30):
        await script.hanging.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await script.left.wait()


async def test_a_dead_worker_is_reported_as_such(gateway: Gateway) -> None:
    gateway.row = Worker(address="http://127.0.0.1:9", models=("m",), kind="fastchat")
    with pytest.raises(ConnectFailed):
        await gateway.chat()


async def test_an_address_may_hold_a_password(gateway: Gateway) -> None:
    gateway.row = Worker(
        address=gateway.row.address.replace("//", "//user:pass%40@"), models=("m",), kind="fastchat"
    )
    assert (await gateway.chat()).json["choices"][0]["message"]["content"] == "a"


async def test_our_own_worker_by_its_fastchat_routes() -> None:
    worker = WorkerRuntime(
        ScriptedEngine(), WorkerOptions(names=["m"], secret="s", fastchat_clients=True)
    )
    await worker.start()
    try:
        async with Client() as client:
            gateway = Gateway(FastChatWorkers(client), worker.address)
            text = "one: {two} |\n中"
            answer = (await gateway.chat(text)).json
            assert answer["choices"][0]["message"]["content"] == f"{text} "
            with pytest.raises(ApiError) as caught:
                await gateway.chat("refuse")
            assert caught.value.code == "context_length_exceeded"
    finally:
        await worker.stop()
