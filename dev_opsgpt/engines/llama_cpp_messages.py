"""Messages of a chat request in the form that llama.cpp's chat templates take."""

from collections.abc import Iterator, Sequence
from typing import Any

from dev_opsgpt.engines.template_messages import message_of
from dev_opsgpt.protocol.errors import Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, ImagePart, Message, RefusalPart, TextPart

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
    return [
        message_of(message, number, _content(number, message, left), objects=False)
        for number, message in enumerate(request.messages)
    ]


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
