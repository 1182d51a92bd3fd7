"""The door alone, before an application that does what a test says."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dev_opsgpt.engines.vllm.door import Door
from dev_opsgpt.protocol.openai import MAX_CHOICES

CHAT = "/v1/chat/completions"
GOOD = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "vllm_xargs": {"a": 1}}
App = Callable[[Any, Any, Any], Awaitable[None]]


async def call(
    app: App, path: str = CHAT, body: bytes = b"", key: str | None = "k", method: str = "POST"
) -> tuple[int, Any, bytes]:
    """Status, headers and body."""
    sent: list[Any] = []
    pieces = [body[:5], body[5:]]

    async def receive() -> Any:
        if not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
    scope = {"type": "http", "path": path, "method": method, "headers": headers}
    await Door(app, "k")(scope, receive, send)
    data = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), data


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    assert (await receive())["type"] == "http.disconnect", "hanging up is still seen"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def answers(status: int, *pieces: bytes) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def raises(error: Exception, *, late: bool = False) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if late:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


async def test_a_good_request_goes_through_as_it_came() -> None:
    body = json.dumps(GOOD).encode()
    assert await call(echo, body=body) == (200, {}, body)


@pytest.mark.parametrize("key", [None, "", "x", "kk", "K"])
@pytest.mark.parametrize("path", [CHAT, "/invocations", "/metrics", "/"])
async def test_without_the_key_nothing_is_answered(path: str, key: str | None) -> None:
    status, headers, body = await call(echo, path, key=key)
    assert status == 401
    assert headers[b"www-authenticate"] == b"Bearer"
    assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert (await call(answers(200), "/health", key=key))[0] == 200


async def test_a_websocket_without_the_key_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "websocket", "path": "/v1/realtime", "headers": []}
    await Door(raises(AssertionError()), "k")(scope, None, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {**GOOD, "n": MAX_CHOICES + 1}, "n"),
        ("/v1/completions", {"model": "m", "prompt": 3}, "prompt"),
        ("/v1/embeddings", {"model": "m"}, "input"),
    ],
)
async def test_what_is_wrong_is_refused_before_vllm(
    path: str, fields: dict[str, Any], param: str
) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    status, _, answer = await call(raises(AssertionError()), path, body)
    assert status == 400
    assert json.loads(answer)["error"]["param"] == param


async def test_errors_get_one_shape() -> None:
    told = b'{"error": {"message": "m", "type": "BadRequestError", "param": "body.seed", "code":'
    status, headers, body = await call(answers(400, told, b" 400}}"), "/tokenize")
    error = json.loads(body)["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert (error["param"], error["code"]) == ("seed", "invalid_value")
    assert int(headers[b"content-length"]) == len(body)
    event = b'data: {"error": {"message": "m", "code": 500}}\n\n'
    _, _, stream = await call(answers(200, b"data: {}\n\n", event + b"data: [DONE]\n\n"), "/x")
    first, second, last = stream.split(b"\n\n")[:3]
    assert (first, last) == (b"data: {}", b"data: [DONE]")
    assert json.loads(second.removeprefix(b"data: "))["error"]["code"] == "internal_error"


async def test_what_is_raised_gets_it_too() -> None:
    status, _, body = await call(raises(RecursionError()), body=json.dumps(GOOD).encode())
    assert (status, json.loads(body)["error"]["param"]) == (400, "messages")
    status, _, body = await call(raises(ValueError("secret")), "/tokenize")
    assert status == 500
    assert b"secret" not in body
    with pytest.raises(ValueError, match="late"):
        await call(raises(ValueError("late"), late=True), "/tokenize")
