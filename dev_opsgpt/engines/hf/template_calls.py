"""What a chat template makes of earlier tool calls, found out by trying it, and messages in a shape
that it shows whole.

Templates differ in what they want, and few say so: the arguments as an object or as JSON text, or
one call a message. Some show tools and leave calls out without a word.
"""

from collections.abc import Callable
from typing import Any

import msgspec

Messages = list[dict[str, Any]]
Render = Callable[[Messages, list[dict[str, Any]]], str]
"""Messages and tools -> the prompt. May raise anything."""

_WORDS = ("needle", "thread")
_FIRST = _WORDS[0]
_RESULT = "yarn"
_IDS = ("123456789", "987654321")
PROBED = "probed_tool"
ASKED = {"role": "user", "content": "x"}
TOOL = {
    "type": "function",
    "function": {
        "name": PROBED,
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    },
}


class CallStyle(msgspec.Struct, frozen=True):
    """How a template takes calls.

    ``shown`` is False where it leaves them out or fails over them, ``results`` where it does so
    with results; ``objects`` says that it wants arguments as objects, ``alone`` that a message may
    have one call only.
    """

    shown: bool = True
    results: bool = True
    objects: bool = True
    alone: bool = False


def call_style(render: Render) -> CallStyle:
    """Tries a template."""
    as_object, as_text = _tried(render, 1), _tried(render, 1, objects=False)
    objects = _wants_objects(as_object, as_text)
    if objects is not None:
        several = _tried(render, 2, objects=objects)
        alone = several is None or not all(word in several for word in _WORDS)
        return CallStyle(objects=objects, alone=alone)
    return CallStyle(shown=False, results=_RESULT in (_tried(render, 0) or ""))


def one_call_each(messages: Messages) -> Messages:
    """The messages with those divided that have several calls. A result follows its call."""
    found: Messages = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        results = []
        while message.get("tool_calls") and at < len(messages) and messages[at]["role"] == "tool":
            results.append(messages[at])
            at += 1
        found += _divided(message, results)
    return found


def _divided(message: dict[str, Any], results: Messages) -> Messages:
    calls = message.get("tool_calls", [])
    if len(calls) < 2:
        return [message, *results]
    found: Messages = []
    bare = {key: message[key] for key in message if key != "reasoning_content"}
    for place, call in enumerate(calls):
        one = bare | {"content": ""} if place else message
        found.append({**one, "tool_calls": [call]})
        own = [result for result in results if result.get("tool_call_id") == call["id"]]
        found += own
        results = [result for result in results if result not in own]
    return found + results


def _wants_objects(as_object: str | None, as_text: str | None) -> bool | None:
    """From what came of arguments that were an object and of those that were text; None where
    neither is in the prompt."""
    if as_object is not None and _is_json(as_object):
        return True
    # A template that only joins strings shows an object as Python writes it.
    usable = as_object is not None and _FIRST in as_object and f"'{_FIRST}'" not in as_object
    if as_text is not None and _FIRST in as_text:
        return usable
    return True if usable else None


def _is_json(text: str) -> bool:
    return any(f'"{_FIRST}":{blank}1' in text for blank in ("", " "))


def _tried(render: Render, calls: int, *, objects: bool = True) -> str | None:
    """The prompt with that many calls and their results, for none with one result all the same;
    None where the template fails."""
    made = []
    for id_, word in zip(_IDS[:calls], _WORDS, strict=False):
        arguments = {word: 1} if objects else f'{{"{word}": 1}}'
        function = {"name": PROBED, "arguments": arguments}
        made.append({"id": id_, "type": "function", "function": function})
    said: dict[str, Any] = {"role": "assistant", "content": ""}
    if made:
        said["tool_calls"] = made
    told = [
        {"role": "tool", "tool_call_id": id_, "name": PROBED, "content": _RESULT}
        for id_ in _IDS[: calls or 1]
    ]
    try:
        return render([ASKED, said, *told], [TOOL])
    except Exception:  # a template is a program, and may fail in any way
        return None
