"""Online APIs as their vendors document them, on real ports: what providers are tested against."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import openai

from dev_opsgpt.protocol import sse
from dev_opsgpt.service.model_workers.loader import make_engine
from dev_opsgpt.transport.asgi import CancelOnDisconnect, read_body, send_body, send_json
from dev_opsgpt.transport.server import App, Receive, Scope, Send, Server, bind
from dev_opsgpt.worker.runtime import WorkerOptions, WorkerRuntime

KEY = "sk-the-server-s-own-key-0123456789"
SECRET = "the workers' secret"

Answering = Callable[[str, dict[str, Any], Send], Awaitable[None]]


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Vendor:
    """A running API: what it was asked, and whether a caller hung up."""

    answering: Answering
    requests: list[Request] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        path = f"{scope['path']}?{query}" if query else scope["path"]
        body = json.loads(await read_body(scope, receive, 1 << 24))
        self.requests.append(Request(path, headers, body))
        try:
            await self.answering(path, body, send)
        except asyncio.CancelledError:
            self.hung_up.set()
            raise


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[str]:
    """The URL under which an application runs."""
    server = Server(CancelOnDisconnect(app), bind("127.0.0.1", 0), drain_timeout=1)
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop()


@asynccontextmanager
async def vendor(answering: Answering) -> AsyncIterator[Vendor]:
    found = Vendor(answering)
    async with serving(found) as url:
        found.url = url
        yield found


@dataclass(frozen=True)
class Settings:
    """Of a worker's settings, what providers are told."""

    model_names: list[str] | None = None
    limit_worker_concurrency: int = 5
    no_register: bool = False
    n_ctx: int | None = None
    default_params: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def worker(
    entry: dict[str, Any], name: str = "example", settings: Settings | None = None
) -> AsyncIterator[WorkerRuntime]:
    """A worker on a real port that serves an entry of ONLINE_LLM_MODEL."""
    engine = make_engine(name, entry, settings or Settings())
    async with running(engine, name) as found:
        yield found


@asynccontextmanager
async def running(engine: Any, name: str = "example") -> AsyncIterator[WorkerRuntime]:
    found = WorkerRuntime(engine, WorkerOptions(names=[name], secret=SECRET, drain_timeout=2))
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


# OpenAI's dialect. The last message says what happens.

CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x"}
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
ERRORS = {
    "bad key": 401,
    "no access": 403,
    "bad field": 400,
    "no model": 404,
    "unprocessable": 422,
    "slow down": 429,
    "broken": 500,
    "away": 503,
}


def error_body(text: str) -> dict[str, Any]:
    message = f"It went wrong: {text}; your key is {KEY}."
    kind = {"message": message, "type": "odd_error", "param": "messages", "code": "odd"}
    return {"error": kind | {"extra": 1}}


async def openai_dialect(path: str, body: dict[str, Any], send: Send) -> None:
    if path.endswith("/embeddings"):
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        rows = [
            {"object": "embedding", "index": i, "embedding": [float(len(text)), 0.5]}
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 4, "total_tokens": 4}
        data = {"object": "list", "data": rows[::-1], "model": body["model"], "usage": usage}
        await send_json(send, 200, data)
        return
    if path.endswith("/rerank"):
        rows = [{"index": 0, "relevance_score": 0.5, "vendor_extension": 1}]
        await send_json(send, 200, {"results": rows, "usage": {"total_tokens": 4}})
        return
    said = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    if said in ERRORS:
        headers = {"retry-after": "7"} if said in ("slow down", "away") else {}
        told = json.dumps(error_body(said)).encode()
        await send_body(send, ERRORS[said], told, headers=headers)
    elif said == "html":
        await send_body(send, 429, b"<html>no</html>", content_type="text/html")
    elif body.get("stream"):
        await stream(path, said, body, send)
    elif said == "hang":
        await asyncio.sleep(60)
    else:
        await send_json(send, 200, whole(path, said, body))


def whole(path: str, said: str, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": f"You said {said}."}
    finish = "stop"
    if body.get("tools"):
        message, finish = (
            {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
            ("tool_calls"),
        )
    if "prompt" in body:
        choice = {"index": 0, "text": f"You said {said}.", "logprobs": None}
        return CHUNK | {
            "object": "text_completion",
            "choices": [choice | {"finish_reason": "stop"}],
            "usage": USAGE,
        }
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
        for index in range(body.get("n") or 1)
    ]
    return CHUNK | {
        "object": "chat.completion",
        "choices": choices,
        "usage": USAGE,
        "vendor_extension": {"kept": True},
    }


async def stream(path: str, said: str, body: dict[str, Any], send: Send) -> None:
    async def give(change: Any, finish: str | None = None, **more: Any) -> None:
        choice = {"index": 0, "finish_reason": finish, "logprobs": None}
        choice |= {"text": change} if "prompt" in body else {"delta": change}
        chunk = {"choices": [choice]} | more
        data = sse.event(json.dumps(CHUNK | chunk, ensure_ascii=False).encode())
        await send({"type": "http.response.body", "body": data, "more_body": True})

    head = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    if "prompt" in body:
        await give(f"You said {said}.", "stop")
    elif body.get("tools"):
        await give({"role": "assistant", "content": None, "tool_calls": [{"index": 0} | TOOL_CALL]})
        await give({}, "tool_calls")
    else:
        await give({"role": "assistant", "content": "You "})
        if said in ("die", "cut"):
            half = b'data: {"id": "chatcmpl-1", "choi'
            await send({"type": "http.response.body", "body": half, "more_body": said == "die"})
            if said == "die":
                # uvicorn closes the connection without the last chunk.
                raise RuntimeError("the vendor dies")
            return
        if said == "fault":
            data = sse.event(json.dumps(error_body(said)).encode())
            await send({"type": "http.response.body", "body": data})
            return
        if said == "hang":
            await asyncio.sleep(60)
        await give({"content": f"said {said}."})
        await give({}, "stop", usage=USAGE)
    if said == "no done":
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.body", "body": sse.DONE})


def client_of(runtime: WorkerRuntime, **options: Any) -> openai.AsyncOpenAI:
    """OpenAI's own client, pointed at a worker."""
    url = f"{runtime.address}/v1"
    return openai.AsyncOpenAI(base_url=url, api_key=SECRET, max_retries=0, **options)
