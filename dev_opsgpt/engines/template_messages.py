"""Messages and tools of a chat request in the form that chat templates take, llama.cpp's and
transformers' alike."""

import json
from typing import Any

from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.protocol.openai import ChatRequest, Message, ToolCall

# Chat templates seldom know the newer name of a system message, or the older of a tool's.
_ROLES = {"developer": "system", "function": "tool"}


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


def callable_tools(request: ChatRequest) -> dict[str, dict[str, Any]]:
    """The parameters of the tools that the model may call, by name: none where it must not."""
    if request.tool_choice == "none":
        return {}
    return {tool.function.name: tool.function.parameters or {} for tool in request.tools or []}


def message_of(
    message: Message, number: int, content: str | list[dict[str, Any]], *, objects: bool
) -> dict[str, Any]:
    """One message with this ``content``; ``number`` is its place in the request. ``objects`` says
    that the arguments of earlier calls are to be objects, not JSON text. Raises ``InvalidRequest``
    for arguments that are not JSON, which templates could not render."""
    found: dict[str, Any] = {"role": _ROLES.get(message.role, message.role), "content": content}
    optional = {
        "name": message.name,
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.reasoning_content,
    }
    found.update({key: value for key, value in optional.items() if value is not None})
    if message.tool_calls:
        found["tool_calls"] = [
            _tool_call(call, f"messages.{number}.tool_calls.{place}", objects)
            for place, call in enumerate(message.tool_calls)
        ]
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
