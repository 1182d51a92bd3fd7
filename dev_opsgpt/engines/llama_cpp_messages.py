"""Messages of a chat request in the form that llama.cpp's chat templates take."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import (
    ChatRequest,
    ImagePart,
    Message,
    RefusalPart,
    TextPart,
    ToolCall,
)

# Chat templates seldom know the newer name of a system message, or the older of a tool's.
_ROLES = {"developer": "system", "function": "tool"}


# What stands for an image where only its place in the prompt is asked for.
PLACEHOLDER = "AAAA"


def messages_of(
    request: ChatRequest, images: Sequence[str] | None = None, *, bare: bool = False
) -> list[dict[str, Any]]:
    """The messages as llama.cpp takes them.

    ``images`` are all those of the request, in base64, or None for a model that sees none;
    ``bare`` leaves them out but for their places. Raises ``Unsupported`` for a part that the model
    does not take, ``InvalidRequest`` for arguments of an earlier tool call that are not JSON,
    which templates could not render.
    """
    left = None if images is None else iter([PLACEHOLDER] * len(images) if bare else images)
    return [_message(number, message, left) for number, message in enumerate(request.messages)]


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


def _message(number: int, message: Message, images: Iterator[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "role": _ROLES.get(message.role, message.role),
        "content": _content(number, message, images),
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


def _content(
    number: int, message: Message, images: Iterator[str] | None
) -> str | list[dict[str, Any]]:
    """A text, or the parts of a message that shows images."""
    if not isinstance(message.content, list):
        return message.text()
    parts: list[dict[str, Any]] = []
    for place, part in enumerate(message.content):
        seen = isinstance(part, ImagePart) and images is not None
        if not (seen or isinstance(part, TextPart | RefusalPart)):
            takes = "text only" if images is None else "text and images"
            raise Unsupported(
                f"This model takes {takes}, no part of type '{part.type}'.",
                param=f"messages.{number}.content.{place}",
            )
        if seen and images is not None:
            url = f"data:image/x-portable-pixmap;base64,{next(images)}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        elif isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
    pictured = any(part["type"] == "image_url" for part in parts)
    return parts if pictured else message.text()


def _tool_call(call: ToolCall, path: str) -> dict[str, Any]:
    try:
        json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        raise InvalidRequest(
            f"'{path}.function.arguments' is not valid JSON.", param=f"{path}.function.arguments"
        ) from None
    function = {"name": call.function.name, "arguments": call.function.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}
