"""Tools for a model whose chat template does not show any: as text, in front of the conversation.

Where the template does not know calls and results either, the model reads them in Hermes style: its
calls as what it said, their results as what the user said.
"""

import json
from typing import Any

from dev_opsgpt.engines.text_formats.hermes import CALL, CALL_END

RESULT, RESULT_END = "<tool_response>", "</tool_response>"


def written_out(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages without roles and fields of tools: calls and results as text."""
    found: list[dict[str, Any]] = []
    results = False  # whether the last message found is one of results
    for message in messages:
        if message["role"] != "tool":
            found.append(_spoken(message))
        elif results:
            found[-1]["content"] += "\n" + _result(message)
        else:
            found.append({"role": "user", "content": _result(message)})
        results = message["role"] == "tool"
    return found


def introduced(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], example: str
) -> list[dict[str, Any]]:
    """The messages with the tools, and how to call one, at the end of a first system message, else
    before what is said first: not every template takes a system message."""
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = f"You can call these tools:\n{listed}\nTo call one, answer with\n{example}"
    first, *others = messages
    parts = [first["content"], text] if first["role"] == "system" else [text, first["content"]]
    return [{**first, "content": "\n\n".join(filter(None, parts))}, *others]


def _spoken(message: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    calls = [_call(call["function"]) for call in message.get("tool_calls", [])]
    return {**rest, "content": "\n".join(filter(None, [message["content"], *calls]))}


def _call(function: dict[str, Any]) -> str:
    given = {"name": function["name"], "arguments": function["arguments"]}
    return f"{CALL}\n{json.dumps(given, ensure_ascii=False)}\n{CALL_END}"


def _result(message: dict[str, Any]) -> str:
    return f"{RESULT}\n{message['content']}\n{RESULT_END}"
