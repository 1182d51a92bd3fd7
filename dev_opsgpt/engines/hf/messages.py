"""Messages of a chat request in the form that Hugging Face's chat templates take."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, Message, RefusalPart, TextPart, ToolCall

# Chat templates seldom know the newer name of a system message, or the older of a tool's.
_ROLES = {"developer": "system", "function": "tool"}
_SHORT = re.compile(r"[a-zA-Z0-9]{9}\Z")


def messages_of(
    request: ChatRequest, *, objects: bool = True, short_ids: bool = False
) -> list[dict[str, Any]]:
    """The messages as a template takes them.

    ``objects`` says that it wants the arguments of earlier calls as objects, not as JSON text;
    ``short_ids`` that it takes ids of nine letters and digits only: others are replaced, the same
    by the same. Raises ``Unsupported`` for a part that is not text, ``InvalidRequest`` for
    arguments that are not JSON.
    """
    found = []
    for number, message in enumerate(request.messages):
        one = _message(number, message)
        if message.tool_calls:
            one["tool_calls"] = [
                _tool_call(call, f"messages.{number}.tool_calls.{place}", objects)
                for place, call in enumerate(message.tool_calls)
            ]
        if short_ids:
            _shorten(one)
        found.append(one)
    return found


def tools_of(request: ChatRequest) -> list[dict[str, Any]]:
    """The tools that the model is shown: none where it must not call any, one where it must call
    that one."""
    if request.tool_choice == "none":
        return []
    named = request.forced_tool
    return [
        tool.model_dump(exclude_none=True)
        for tool in request.tools or []
        if named is None or tool.function.name == named
    ]


def _message(number: int, message: Message) -> dict[str, Any]:
    if isinstance(message.content, list):
        for place, part in enumerate(message.content):
            if not isinstance(part, TextPart | RefusalPart):
                raise Unsupported(
                    f"This model takes text only, no part of type '{part.type}'.",
                    param=f"messages.{number}.content.{place}",
                )
    found: dict[str, Any] = {
        "role": _ROLES.get(message.role, message.role),
        "content": message.text(),
    }
    optional = {
        "name": message.name,
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.reasoning_content,
    }
    found.update({key: value for key, value in optional.items() if value is not None})
    return found


def _tool_call(call: ToolCall, path: str, objects: bool) -> dict[str, Any]:
    text = call.function.arguments or "{}"
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest(
            f"'{path}.function.arguments' is not valid JSON.", param=f"{path}.function.arguments"
        ) from None
    function = {"name": call.function.name, "arguments": arguments if objects else text}
    return {"id": call.id, "type": "function", "function": function}


def _shorten(message: dict[str, Any]) -> None:
    if "tool_call_id" in message:
        message["tool_call_id"] = _short_id(message["tool_call_id"])
    calls: list[Mapping[str, Any]] = message.get("tool_calls", [])
    if calls:
        message["tool_calls"] = [{**call, "id": _short_id(call["id"])} for call in calls]


def _short_id(given: str) -> str:
    return given if _SHORT.match(given) else hashlib.sha256(given.encode()).hexdigest()[:9]
