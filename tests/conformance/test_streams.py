"""Streams as they are on the wire, whole and broken off."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.conformance.ask import QUESTION, says
from tests.conformance.target import Can, Target

LONG = "Tell me a long story."
# Of an answer that is cut, in seconds: the first is enough but on a machine that is busy.
TIMES = ("0.7", "1.4", "2.8", "5.6", "11.2")
ROUTES = [("/chat/completions", {"messages": says(LONG)}), ("/completions", {"prompt": LONG})]


async def events(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[str]:
    """The payloads of the events of a stream."""
    return events_in(await http.post(path, json=body | {"stream": True}))


def events_in(answer: httpx.Response) -> list[str]:
    """The same, of an answer that is there."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]


@pytest.mark.parametrize(("path", "given"), ROUTES)
async def test_the_events_of_a_stream(
    http: httpx.AsyncClient, target: Target, path: str, given: dict[str, Any]
) -> None:
    if path == "/completions":
        target.need(Can.COMPLETIONS)
    body = {"model": target.model, "temperature": 0, "max_tokens": 400, **given}
    if target.end_tokens:
        body["logit_bias"] = target.endless
    # It comes as it is made, not all at the end. In how many pieces is up to the machine: what a
    # model makes in half a millisecond is sent together where it is busy, so a few are looked at.
    pieces: list[int] = []
    while max(pieces, default=0) < 4:
        assert len(pieces) < 20, pieces
        pieces.append(await pieces_of(http, path, body))


async def pieces_of(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> int:
    """In how many pieces the text of an answer comes, of which every event is looked at."""
    *found, done = await events(http, path, body)
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in found]
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    finishes = [choice["finish_reason"] for choice in choices]
    assert set(finishes[:-1]) == {None}
    assert finishes[-1] in ("length", "stop")
    if path == "/chat/completions":
        assert choices[0]["delta"]["role"] == "assistant"
        assert all("role" not in choice["delta"] for choice in choices[1:])
    texts = [
        choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        for choice in choices
    ]
    return sum(bool(text) for text in texts)


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
    for seconds in TIMES:
        sent = body | {"stream": True}
        answer = await http.post(path, json=sent, headers={"x-request-timeout": seconds})
        if answer.status_code == 504:
            continue  # not even its beginning was in time
        found = events_in(answer)
        *chunks, last = [json.loads(event) for event in found]  # and no [DONE]
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert last["error"]["code"] == "request_timeout"
        if len(chunks) > 1:
            break
    assert len(chunks) > 1
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])


async def test_the_openai_client_raises_half_way(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    target.need(Can.DEADLINE, Can.LOGIT_BIAS)
    pieces: list[Any] = []

    async def listen(seconds: str) -> None:
        stream = await client.chat.completions.create(
            model=target.model,
            messages=says(LONG),
            logit_bias=target.endless,
            stream=True,
            extra_headers={"x-request-timeout": seconds},
        )
        async for chunk in stream:
            pieces.append(chunk)

    for seconds in TIMES:
        with pytest.raises(openai.APIError, match=seconds.replace(".", r"\.")):
            await listen(seconds)
        if pieces:
            break  # its beginning was in time
    assert pieces
