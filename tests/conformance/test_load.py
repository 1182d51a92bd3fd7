"""Many at once, and clients that leave."""

import asyncio
from typing import Any

import httpx
import openai
import pytest

from tests.conformance.ask import all_of, both, plain, says, streamed
from tests.conformance.target import Can, Target

CROWD = 16
PATIENCE = 10.0


async def test_sixteen_at_once(client: openai.AsyncOpenAI, target: Target) -> None:
    questions = ["What is your name?", "你好", "Tell me about yourself.", "Hi 😀"]
    alone = [await both(client, target, question, max_tokens=24) for question in questions]
    asked = [(i, plain if i % 2 else streamed) for i in range(CROWD)]
    answers = await asyncio.gather(
        *(ask(client, target, questions[i // 4], max_tokens=24) for i, ask in asked)
    )
    assert [answer.text for answer in answers] == [alone[i // 4].text for i in range(CROWD)]
    assert all(answer.tokens == alone[i // 4].tokens for i, answer in enumerate(answers))


async def test_requests_of_all_kinds_at_once(client: openai.AsyncOpenAI, target: Target) -> None:
    target.need(Can.JSON, Can.TOOLS, Can.LOGPROBS)
    pick = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    function = {"name": "pick", "parameters": pick | {"additionalProperties": False}}
    kinds: list[dict[str, Any]] = [
        {"max_tokens": 20},
        {"max_tokens": 20, "logprobs": True, "top_logprobs": 2},
        {"max_tokens": 20, "stop": ["e"]},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "two", "schema": {"const": "é🙂"}},
            }
        },
        {"tools": [{"type": "function", "function": function}], "tool_choice": "required"},
    ]
    alone = [await plain(client, target, **fields) for fields in kinds]
    together = await all_of(
        ask(client, target, **fields) for ask in (plain, streamed) for fields in kinds
    )
    for one, other in zip([*alone, *alone], together, strict=True):
        assert (other.text, other.finish, other.tokens) == (one.text, one.finish, one.tokens)
        assert [call[1:] for call in other.calls] == [call[1:] for call in one.calls]
        assert [entry.token for entry in other.logprobs] == [entry.token for entry in one.logprobs]


async def running(http: httpx.AsyncClient, target: Target) -> int:
    """How many requests the model's worker has at work or in its queue."""
    assert target.health is not None
    found = (await http.get(target.health)).json()
    return int(found["running"]) + int(found["waiting"])


async def until(http: httpx.AsyncClient, target: Target, *, busy: bool) -> None:
    """Waits until the worker has work, or has none."""
    async with asyncio.timeout(PATIENCE):
        while bool(await running(http, target)) is not busy:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
async def test_hanging_up_frees_the_slot(
    http: httpx.AsyncClient, target: Target, stream: bool
) -> None:
    if target.health is None:
        pytest.skip("what the worker has at work is not known")
    target.need(Can.LOGIT_BIAS)
    body: dict[str, Any] = {
        "model": target.model,
        "messages": says("Tell me a long story."),
        "logit_bias": target.endless,
        "stream": stream,
    }
    await until(http, target, busy=False)
    asked = [asyncio.create_task(_listen(http, body)) for _ in range(CROWD)]
    await until(http, target, busy=True)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await until(http, target, busy=False)
    after = await http.post("/chat/completions", json=body | {"max_tokens": 3, "stream": False})
    assert after.json()["usage"]["completion_tokens"] == 3


async def _listen(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    async with http.stream("POST", "/chat/completions", json=body) as answer:
        await answer.aread()


async def test_leaving_a_stream_half_way(client: openai.AsyncOpenAI, target: Target) -> None:
    for _ in range(CROWD):
        stream = await client.chat.completions.create(
            model=target.model, messages=says("Tell me a long story."), stream=True
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        await stream.close()
    assert (await plain(client, target, max_tokens=3)).finish == "length"
