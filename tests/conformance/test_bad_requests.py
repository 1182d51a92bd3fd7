"""What a client gets wrong: the right status, the field by its name, at once, and no harm done."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conformance.ask import QUESTION, says
from tests.conformance.target import Can, Target

PROMPT_PLACE = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}
DEEP = 100_000
AT_ONCE = 1.0


@pytest.fixture(autouse=True)
async def _the_next_request_works(http: httpx.AsyncClient, target: Target) -> Any:
    yield
    body = {"model": target.model, "messages": says(QUESTION), "max_tokens": 2}
    answer = await http.post("/chat/completions", json=body)
    assert answer.status_code == 200, answer.text


async def refused(
    http: httpx.AsyncClient, path: str, status: int = 400, **request: Any
) -> dict[str, Any]:
    """The error that a request is answered with."""
    began = time.monotonic()
    answer = await http.post(path, **request)
    took = time.monotonic() - began
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert took < AT_ONCE
    return error


CHAT_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages.0"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
    ({"messages": [{"content": "hi"}]}, "messages.0.role"),
    ({"messages": [*says("a"), {"role": "user", "content": 3}]}, "messages.1.content"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages.0.content.0"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"presence_penalty": -2.1}, "presence_penalty"),
    ({"frequency_penalty": 2.1}, "frequency_penalty"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_completion_tokens": "5"}, "max_completion_tokens"),
    ({"n": 0}, "n"),
    ({"n": 10_000}, "n"),
    ({"seed": "a"}, "seed"),
    ({"stop": 3}, "stop"),
    ({"stop": ["a", 3]}, "stop.1"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"logprobs": "yes"}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"stream": "yes"}, "stream"),
    ({"stream": True, "stream_options": "x"}, "stream_options"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"tools": "x"}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
]


@pytest.mark.parametrize(("fields", "param"), CHAT_FAULTS, ids=lambda value: str(value)[:50])
async def test_fields_of_chats(
    http: httpx.AsyncClient, target: Target, fields: dict[str, Any], param: str
) -> None:
    body = {"model": target.model, "messages": says("hi"), "max_tokens": 2, **fields}
    assert (await refused(http, "/chat/completions", json=body))["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": 3}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [10**8]}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"best_of": 0}, "best_of"),
        ({"echo": "x"}, "echo"),
        ({"prompt": ["a"] * 2000, "n": 100, "max_tokens": 1}, "prompt"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_fields_of_completions(
    http: httpx.AsyncClient, target: Target, fields: dict[str, Any], param: str
) -> None:
    target.need(Can.COMPLETIONS)
    body = {"model": target.model, "prompt": "hi", "max_tokens": 2, **fields}
    error = await refused(http, "/completions", json=body)
    # Which entry of the prompts is wrong may be told as well.
    assert error["param"].split(".")[0] == param


@pytest.mark.parametrize("path", list(PROMPT_PLACE))
async def test_what_all_routes_have_in_common(
    http: httpx.AsyncClient, target: Target, path: str
) -> None:
    place = PROMPT_PLACE[path]
    given: Any = says("hi") if place == "messages" else "hi"
    missing = await refused(http, path, json={place: given})
    assert missing["param"] == "model"
    assert (await refused(http, path, json={"model": 3, place: given}))["param"] == "model"
    unknown = await refused(http, path, 404, json={"model": "no-such-model", place: given})
    assert (unknown["param"], unknown["code"]) == ("model", "model_not_found")
    if place != "prompt":  # which has a default
        assert (await refused(http, path, json={"model": target.model}))["param"] == place
    for body in (b"", b"{", b"[]", b"null", b'"x"', b'{"model": }', b"\xff\xfe{}", b"model=m"):
        await refused(http, path, content=body)


@pytest.mark.parametrize("path", list(PROMPT_PLACE))
async def test_bytes_that_are_not_text(http: httpx.AsyncClient, target: Target, path: str) -> None:
    body = json.dumps({"model": target.model, PROMPT_PLACE[path]: "@"}).encode()
    for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\n"):
        await refused(http, path, content=body.replace(b"@", bad))


def _deep() -> Iterator[tuple[str, bytes]]:
    for kind, nested in (
        ("arrays", b"[" * DEEP + b"]" * DEEP),
        ("objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
        ("open arrays", b"[" * DEEP),
    ):
        yield f"{kind} in messages", b'{"model":"%b","messages":' + nested + b"}"
        head = b'{"model":"%b","messages":[{"role":"user","content":"hi"}],'
        yield f"{kind} in a field nobody knows", head + b'"x":' + nested + b"}"
        form = b'"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":'
        yield f"{kind} in a schema", head + form + nested + b"}}}"
        yield f"{kind} alone", nested
        call = {"id": "1", "type": "function", "function": {"name": "a", "arguments": "@"}}
        said = [*says("hi"), {"role": "assistant", "content": "", "tool_calls": [call]}, *says("?")]
        quoted = json.dumps({"model": "%b", "max_tokens": 2, "messages": said}).encode()
        text = json.dumps(nested.decode())[1:-1].encode()
        yield f"{kind} in the arguments of a call", quoted.replace(b"@", text)


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in _deep()])
async def test_a_hundred_thousand_levels(
    http: httpx.AsyncClient, target: Target, body: bytes
) -> None:
    content = body.replace(b"%b", target.model.encode(), 1)
    await refused(http, "/chat/completions", content=content)


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long(
    http: httpx.AsyncClient, target: Target, path: str, stream: bool
) -> None:
    place = PROMPT_PLACE[path]
    text = "word " * (2 * target.context)
    given: Any = says(text) if place == "messages" else text
    error = await refused(http, path, json={"model": target.model, place: given, "stream": stream})
    assert (error["param"], error["code"]) == (place, "context_length_exceeded")
    assert str(target.context) in error["message"]


@pytest.mark.parametrize("path", list(PROMPT_PLACE))
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large(
    http: httpx.AsyncClient, target: Target, path: str, chunked: bool
) -> None:
    if target.max_body is None:
        pytest.skip("how much is too large is not known")
    body = b" " * (target.max_body + 1)

    async def pieces() -> Any:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    error = await refused(http, path, 413, content=pieces() if chunked else body)
    assert error["code"] == "request_too_large"
    assert str(target.max_body) in error["message"]


async def test_paths_and_methods(http: httpx.AsyncClient, target: Target) -> None:
    assert (await refused(http, "/nothing", 404, json={}))["code"] == "not_found"
    assert (await refused(http, "/models", 405, json={}))["code"] == "method_not_allowed"
    answer = await http.get("/chat/completions")
    assert answer.status_code == 405
    missing = await http.get("/models/no-such-model")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
