"""Messages of a chat request in the form that llama.cpp's chat templates take."""

import json
from typing import Any

from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, Message, RefusalPart, TextPart, ToolCall

# Chat templates seldom know the newer name of a system message, or the older of a tool's.
_ROLES = {"developer": "system", "function": "tool"}


def messages_of(request: ChatRequest) -> list[dict[str, Any]]:
    """The messages as llama.cpp takes them.

    Raises ``Unsupported`` for a part that is not text, ``InvalidRequest`` for arguments of an
    earlier tool call that are not JSON, which templates could not render.
    """
    return [_message(number, message) for number, message in enumerate(request.messages)]


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
    if message.tool_calls:
        found["tool_calls"] = [
            _tool_call(call, f"messages.{number}.tool_calls.{place}")
            for place, call in enumerate(message.tool_calls)
        ]
    return found


def _tool_call(call: ToolCall, path: str) -> dict[str, Any]:
    try:
        json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        raise InvalidRequest(
            f"'{path}.function.arguments' is not valid JSON.", param=f"{path}.function.arguments"
        ) from None
    function = {"name": call.function.name, "arguments": call.function.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}
