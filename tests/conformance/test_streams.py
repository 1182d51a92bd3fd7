"""Streams as they are on the wire, whole and broken off."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.conformance.ask import QUESTION, says
from tests.conformance.target import Can, Target

LONG = "Tell me a long story."
ROUTES = [("/chat/completions", {"messages": says(LONG)}), ("/completions", {"prompt": LONG})]


async def events(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], **more: Any
) -> list[str]:
    """The payloads of the events of a stream."""
    async with http.stream("POST", path, json=body | {"stream": True}, **more) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
        text = (await answer.aread()).decode()
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]


@pytest.mark.parametrize(("path", "given"), ROUTES)
async def test_the_events_of_a_stream(
    http: httpx.AsyncClient, target: Target, path: str, given: dict[str, Any]
) -> None:
    if path == "/completions":
        target.need(Can.COMPLETIONS)
    # So many that those of a model which takes half a millisecond for one come in several pieces.
    body = {"model": target.model, "temperature": 0, "max_tokens": 400, **given}
    if target.end_tokens:
        body["logit_bias"] = target.endless
    *found, done = await events(http, path, body)
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in found]
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    finishes = [choice["finish_reason"] for choice in choices]
    assert set(finishes[:-1]) == {None}
    assert finishes[-1] in ("length", "stop")
    texts = [
        choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        for choice in choices
    ]
    # It comes as it is made, not all at the end.
    assert sum(bool(text) for text in texts) >= 4
    if path == "/chat/completions":
        assert choices[0]["delta"]["role"] == "assistant"
        assert all("role" not in choice["delta"] for choice in choices[1:])


async def test_several_answers_in_one_stream(http: httpx.AsyncClient, target: Target) -> None:
    target.need(Can.N)
    body = {"model": target.model, "messages": says(QUESTION), "n": 3, "max_tokens": 6}
    *found, done = await events(http, "/chat/completions", body)
    assert done == "[DONE]"
    finishes = {}
    for event in found:
        for choice in json.loads(event)["choices"]:
            assert choice["index"] not in finishes
            if choice["finish_reason"]:
                finishes[choice["index"]] = choice["finish_reason"]
    assert set(finishes) == {0, 1, 2}


@pytest.mark.parametrize(("path", "given"), ROUTES)
async def test_an_error_half_way(
    http: httpx.AsyncClient, target: Target, path: str, given: dict[str, Any]
) -> None:
    target.need(Can.DEADLINE, Can.LOGIT_BIAS)
    if path == "/completions":
        target.need(Can.COMPLETIONS)
    body = {"model": target.model, "logit_bias": target.endless, "temperature": 0, **given}
    found = await events(http, path, body, headers={"x-request-timeout": "0.7"})
    *chunks, last = [json.loads(event) for event in found]  # and no [DONE]
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert last["error"]["code"] == "request_timeout"
    assert len(chunks) > 1
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])


async def test_the_openai_client_raises_half_way(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    target.need(Can.DEADLINE, Can.LOGIT_BIAS)
    stream = await client.chat.completions.create(
        model=target.model,
        messages=says(LONG),
        logit_bias=target.endless,
        stream=True,
        extra_headers={"x-request-timeout": "0.7"},
    )
    pieces = []

    async def listen() -> None:
        async for chunk in stream:
            pieces.append(chunk)

    with pytest.raises(openai.APIError, match=r"0\.7"):
        await listen()
    assert pieces
