"""Requests and whole answers, for tests of engines."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest
from dev_opsgpt.protocol.parse import parse
from dev_opsgpt.worker.engine import Delta, Engine, TokenLogprob, Usage

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/number"}, "b": {"$ref": "#/$defs/number"}},
            "required": ["a", "b"],
            "additionalProperties": False,
            "$defs": {"number": {"type": "integer"}},
        },
    },
}


class Answer(msgspec.Struct):
    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = []
    logprobs: list[TokenLogprob] = []
    finish: str | None = None
    usage: Usage | None = None
    steps: list[Delta] = []


def chat(content: Any = "hi", **fields: Any) -> ChatRequest:
    messages = fields.pop("messages", [{"role": "user", "content": content}])
    body = {"model": "m", "messages": messages, **fields}
    return parse(ChatRequest, json.dumps(body).encode())


def completion(prompt: Any = "hi", **fields: Any) -> CompletionRequest:
    return parse(CompletionRequest, json.dumps({"model": "m", "prompt": prompt, **fields}).encode())


async def gather(steps: AsyncGenerator[Delta, None]) -> Answer:
    """The whole answer; also checks what must hold of every stream of deltas."""
    found = Answer()
    async with aclosing(steps):
        async for delta in steps:
            assert found.finish is None, "a step after the last"
            assert delta.usage is None or delta.finish_reason
            found.steps.append(delta)
            found.content += delta.content
            found.reasoning += delta.reasoning
            found.logprobs += delta.logprobs
            found.finish, found.usage = delta.finish_reason, delta.usage
            for call in delta.tool_calls:
                if call.index == len(found.calls):
                    assert call.id
                    assert call.id.startswith("call_") or len(call.id) == 9  # Mistral's
                    assert call.name
                    found.calls.append((call.name, ""))
                name, arguments = found.calls[call.index]
                found.calls[call.index] = (name, arguments + call.arguments)
    assert found.finish
    assert found.usage
    return found


async def ask(engine: Engine, content: Any = "hi", **fields: Any) -> Answer:
    return await gather(engine.chat(chat(content, **fields)))


async def finish(engine: Engine, prompt: Any = "hi", **fields: Any) -> Answer:
    request = completion(prompt, **fields)
    return await gather(engine.complete(request, request.prompts[0]))
