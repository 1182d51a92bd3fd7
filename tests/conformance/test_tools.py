"""Tool calls: never, where the model likes, always, or one by its name."""

import json
from typing import Any

import openai
import pytest

from tests.conformance.ask import both, plain, says, streamed
from tests.conformance.target import Can, Target

CITIES = ["Paris", "北京", "São Paulo", "🏙"]
# Bounded, like everything here: what a model may draw out for ever is cut by the limit.
DAYS = {"type": "integer", "minimum": 0, "maximum": 14}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": CITIES}, "days": DAYS},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
SWITCH: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "switch",
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
            "additionalProperties": False,
        },
    },
}
PING: dict[str, Any] = {"type": "function", "function": {"name": "ping"}}
TOOLS = [WEATHER, SWITCH, PING]
ASKED = "What is the weather in Paris?"


@pytest.fixture(autouse=True)
def _needed(target: Target) -> None:
    target.need(Can.TOOLS)


def check(name: str, arguments: str) -> None:
    """Asserts that a call is one of ``TOOLS``."""
    found = json.loads(arguments)
    if name == "get_weather":
        assert set(found) == {"city", "days"}
        assert found["city"] in CITIES
        assert isinstance(found["days"], int)
    elif name == "switch":
        assert set(found) == {"on"}
        assert isinstance(found["on"], bool)
    else:
        assert (name, found) == ("ping", {})


@pytest.mark.parametrize("seed", range(3))
async def test_required(client: openai.AsyncOpenAI, target: Target, seed: int) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "temperature": 1.5, "seed": seed}
    answer = await both(client, target, ASKED, max_tokens=200, **fields)
    assert answer.finish == "tool_calls"
    assert answer.text == ""
    assert answer.calls
    for _, name, arguments in answer.calls:
        check(name, arguments)


@pytest.mark.parametrize("name", ["get_weather", "switch", "ping"])
async def test_named(client: openai.AsyncOpenAI, target: Target, name: str) -> None:
    choice = {"type": "function", "function": {"name": name}}
    answer = await both(
        client, target, ASKED, tools=TOOLS, tool_choice=choice, max_tokens=200, temperature=0
    )
    assert [call[1] for call in answer.calls] == [name]
    # OpenAI says "stop" after a call that was named in the request; others say "tool_calls".
    assert answer.finish in ("tool_calls", "stop")
    check(name, answer.calls[0][2])


@pytest.mark.parametrize("seed", range(3))
async def test_one_of_the_allowed(client: openai.AsyncOpenAI, target: Target, seed: int) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("switch", "ping")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
    fields = {"tools": TOOLS, "tool_choice": choice, "temperature": 1.5, "seed": seed}
    answer = await both(client, target, ASKED, max_tokens=200, **fields)
    assert answer.calls
    for _, name, arguments in answer.calls:
        assert name in ("switch", "ping")
        check(name, arguments)


async def test_ids_are_unique(client: openai.AsyncOpenAI, target: Target) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 200}
    answers = [await ask(client, target, ASKED, **fields) for ask in (plain, plain, streamed)]
    ids = [call[0] for answer in answers for call in answer.calls]
    assert len(set(ids)) == len(ids)
    assert all(ids)


async def test_none(client: openai.AsyncOpenAI, target: Target) -> None:
    answer = await both(client, target, ASKED, tools=TOOLS, tool_choice="none", max_tokens=60)
    assert answer.calls == []
    assert answer.finish in ("stop", "length")
    assert answer.text


async def test_auto(client: openai.AsyncOpenAI, target: Target) -> None:
    answer = await both(client, target, ASKED, tools=[WEATHER], max_tokens=100)
    if answer.calls:
        assert answer.finish == "tool_calls"
        assert [call[1] for call in answer.calls] == ["get_weather"]
        json.loads(answer.calls[0][2])
    else:
        assert answer.finish in ("stop", "length")
        assert answer.text


async def test_the_openai_client_puts_a_stream_together(
    client: openai.AsyncOpenAI, target: Target
) -> None:
    async with client.chat.completions.stream(
        model=target.model,
        messages=says(ASKED),
        tools=TOOLS,  # type: ignore[arg-type]
        tool_choice="required",
        max_tokens=200,
    ) as stream:
        whole = await stream.get_final_completion()
    choice = whole.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls
    for call in choice.message.tool_calls:
        check(call.function.name, call.function.arguments)


async def test_arguments_come_in_pieces(client: openai.AsyncOpenAI, target: Target) -> None:
    pieces = []
    async for chunk in await client.chat.completions.create(
        model=target.model,
        messages=says(ASKED),
        tools=[WEATHER],  # type: ignore[list-item]
        tool_choice="required",
        max_tokens=200,
        stream=True,
    ):
        calls = [call for choice in chunk.choices for call in choice.delta.tool_calls or []]
        pieces += [call.function.arguments or "" for call in calls if call.function]
    assert sum(bool(piece) for piece in pieces) > 1
    check("get_weather", "".join(pieces))


async def test_a_result_is_taken_back(client: openai.AsyncOpenAI, target: Target) -> None:
    call = {"name": "get_weather", "arguments": '{"city": "北京", "days": 1}'}
    messages: list[Any] = [
        *says(ASKED),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain, 8 °C"},
    ]
    answer = await both(client, target, messages=messages, tools=TOOLS, max_tokens=30)
    assert answer.text or answer.calls


async def test_a_limit_cuts_a_call(client: openai.AsyncOpenAI, target: Target) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    fields = {"tools": TOOLS, "tool_choice": choice}
    whole = await plain(client, target, ASKED, max_tokens=200, **fields)
    cut = await both(client, target, ASKED, max_tokens=whole.tokens - 4, **fields)
    assert cut.finish == "length"
    assert all(whole.calls[0][2].startswith(call[2]) for call in cut.calls)
