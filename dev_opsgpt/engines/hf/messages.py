"""Messages of a chat request in the form that Hugging Face's chat templates take."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from dev_opsgpt.engines.template_messages import message_of
from dev_opsgpt.protocol.errors import Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, Message, RefusalPart, TextPart

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
        one = message_of(message, number, _text(number, message), objects=objects)
        if short_ids:
            _shorten(one)
        found.append(one)
    return found


def _text(number: int, message: Message) -> str:
    if isinstance(message.content, list):
        for place, part in enumerate(message.content):
            if not isinstance(part, TextPart | RefusalPart):
                raise Unsupported(
                    f"This model takes text only, no part of type '{part.type}'.",
                    param=f"messages.{number}.content.{place}",
                )
    return message.text()


def _shorten(message: dict[str, Any]) -> None:
    if "tool_call_id" in message:
        message["tool_call_id"] = _short_id(message["tool_call_id"])
    calls: list[Mapping[str, Any]] = message.get("tool_calls", [])
    if calls:
        message["tool_calls"] = [{**call, "id": _short_id(call["id"])} for call in calls]


def _short_id(given: str) -> str:
    return given if _SHORT.match(given) else hashlib.sha256(given.encode()).hexdigest()[:9]
