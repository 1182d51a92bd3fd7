"""Tools, calls and results for a model whose chat template leaves some of them out: as text.

Tools stand in front of the conversation, calls are what the assistant said, in the model's own
form, and results what the user said.
"""

import json
from collections.abc import Mapping
from typing import Any

from dev_opsgpt.engines.text_formats.form import Form

Tools = list[dict[str, Any]]

RESULT, RESULT_END = "<tool_response>", "</tool_response>"


def described(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The tool with everything that it may leave out and some templates ask for: descriptions, and
    the types of parameters."""
    function = tool["function"]
    given = function.get("parameters") or {}
    definitions = given.get("$defs", {})
    parameters = {
        "type": "object",
        **given,
        "properties": {
            name: _described(one, definitions) if isinstance(one, dict) else one
            for name, one in given.get("properties", {}).items()
        },
    }
    return {**tool, "function": {"description": "", **function, "parameters": parameters}}


def written_out(
    messages: list[dict[str, Any]], form: Form, *, results: bool
) -> list[dict[str, Any]]:
    """The messages without calls, which become text, and without the role of tools if that is to be
    so for ``results`` too."""
    found: list[dict[str, Any]] = []
    told = False  # whether the last message found is one of results
    for message in messages:
        if message["role"] != "tool" or not results:
            found.append(_spoken(message, form))
        elif told:
            found[-1]["content"] += "\n" + _result(message)
        else:
            found.append({"role": "user", "content": _result(message)})
        told = message["role"] == "tool"
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


def _spoken(message: dict[str, Any], form: Form) -> dict[str, Any]:
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    functions = [call["function"] for call in message.get("tool_calls", [])]
    calls = [form.written(one["name"], one["arguments"]) for one in functions]
    return {**rest, "content": "\n".join(filter(None, [message["content"], *calls]))}


def _described(schema: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    meant = definitions.get(str(schema.get("$ref", "")).removeprefix("#/$defs/"), {})
    kind = meant.get("type", "any") if isinstance(meant, dict) else "any"
    return {"description": "", "type": kind, **schema}


def _result(message: dict[str, Any]) -> str:
    return f"{RESULT}\n{message['content']}\n{RESULT_END}"
