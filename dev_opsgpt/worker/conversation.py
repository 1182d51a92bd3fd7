"""A FastChat conversation template that carries messages through a prompt without loss.

FastChat's gateway asks a worker for a conversation template, renders the messages with it into
one text, and sends that text back to the worker. A model's own chat template can do more than
FastChat's nineteen styles can say, so this worker hands out a template of marks instead: what
comes back is read as messages again, exactly, and the engine applies the model's own template.
The marks hold a secret tag, so that no user can forge a turn by writing one.

Source of the rendering rules: fschat 0.2.36, ``conversation.py``, style ``ADD_COLON_TWO``: the
system text and sep, then for each turn ``role: text`` and a separator, ``role:`` for a turn
without text. Of the styles it is the only one that takes messages made of parts, and its number
is the same in every version.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Any

from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.protocol.fastchat import Conversation
from dev_opsgpt.protocol.openai import Message

ADD_COLON_TWO = 2
# What FastChat writes before a text, once for each image that belongs to it.
IMAGE_MARK = "$$<image>$$"
_START, _MIDDLE, _END = "\x02", "\x03", "\x04"


class MarkedConversation:
    """The template of marks, and the way back.

    ``secret`` makes the tag; the same secret makes the same tag, for FastChat's gateway keeps a
    template as long as it lives, over any number of restarts of the worker.
    """

    def __init__(self, secret: str) -> None:
        digest = hmac.new(secret.encode(), b"conversation marks", hashlib.sha256).hexdigest()
        self._tag = digest[:24]
        self._turn = re.compile(rf"{_START}(system|user|assistant):{self._tag}{_MIDDLE}")

    def _mark(self, role: str) -> str:
        return f"{_START}{role}:{self._tag}{_MIDDLE}"

    def template(self, name: str) -> Conversation:
        """The template under a name."""
        return Conversation(
            name=name,
            system_template=self._mark("system") + "{system_message}",
            roles=(self._mark("user"), self._mark("assistant")),
            sep_style=ADD_COLON_TWO,
            sep=_END,
            sep2=_END,
        )

    def messages(self, prompt: str, images: Sequence[str] = ()) -> list[Message] | None:
        """The messages in a prompt of this template; ``None`` for any other prompt.

        An absent system message and an empty one look alike, and are left out. ``images`` are
        the URLs that came with the prompt; raises ``InvalidRequest`` where they are not as many
        as the prompt has places for, which happens when FastChat loses some.
        """
        pieces = self._turn.split(prompt)
        if len(pieces) == 1 or pieces[0]:
            return None
        turns = list(zip(pieces[1::2], pieces[2::2], strict=True))
        if turns[-1] == ("assistant", ":"):
            # The bare role that asks for the answer.
            turns.pop()
        found = [(role, _text(role, piece)) for role, piece in turns]
        spoken = [turn for turn in found if turn != ("system", "")]
        return [Message.model_validate(fields) for fields in _with_images(spoken, images)]


def _text(role: str, piece: str) -> str:
    if role != "system":
        piece = piece.removeprefix(":").removeprefix(" ")
    return piece.removesuffix(_END)


def _with_images(turns: list[tuple[str, str]], images: Sequence[str]) -> list[dict[str, Any]]:
    if not images:
        return [{"role": role, "content": text} for role, text in turns]
    left = list(images)
    fields: list[dict[str, Any]] = []
    for role, text in turns:
        parts: list[dict[str, Any]] = []
        while role == "user" and text.startswith(IMAGE_MARK):
            if not left:
                raise InvalidRequest("There are fewer images than places for them.", param="images")
            text = text.removeprefix(IMAGE_MARK)
            parts.append({"type": "image_url", "image_url": {"url": left.pop(0)}})
        if parts and text:
            parts.append({"type": "text", "text": text})
        fields.append({"role": role, "content": parts or text})
    if left:
        raise InvalidRequest("There are more images than places for them.", param="images")
    return fields
