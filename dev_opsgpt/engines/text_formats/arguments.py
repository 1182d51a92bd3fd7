"""The arguments of a call while their text is still coming, always given as JSON."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from dev_opsgpt.engines.text_formats.form import Tags
from dev_opsgpt.engines.text_formats.held import Held
from dev_opsgpt.engines.text_formats.json_span import JsonSpan
from dev_opsgpt.engines.text_formats.pattern import Fit, fit
from dev_opsgpt.engines.text_formats.tag_values import ValueEnd, json_of, only_text


class Arguments(Protocol):
    """Takes the arguments off the held text."""

    def take(self, held: Held, last: bool) -> tuple[str, bool]:
        """The JSON text that is certain, and whether it is the last of these arguments. ``last``
        says that no more text will come."""
        ...


class JsonArguments:
    """A JSON object, passed on as it is written."""

    def __init__(self) -> None:
        self._span = JsonSpan()

    def take(self, held: Held, last: bool) -> tuple[str, bool]:
        """See ``Arguments``."""
        end = self._span.end(held.text)
        return held.take(len(held.text) if end is None else end).content, end is not None


class TaggedArguments:
    """Values between tags, which become the members of a JSON object.

    ``parameters`` is the JSON schema that says which of them are text. A text is passed on as it
    comes, any other value when it is whole.
    """

    def __init__(self, tags: Tags, parameters: Mapping[str, Any]) -> None:
        self._tags = tags
        self._parameters = parameters
        self._begun = False
        self._key: str | None = None
        self._streams = False  # the value is a text, of which something was given already
        self._end = ValueEnd(tags.close)
        self._closed = False

    def take(self, held: Held, last: bool) -> tuple[str, bool]:
        """See ``Arguments``. Text that ends between two values ends the arguments too."""
        given = ""
        while not self._closed:
            before = (len(held.text), self._key)
            given += self._member(held, last) if self._key is None else self._value(held, last)
            if (len(held.text), self._key) == before:
                break
        if last:
            held.drop(len(held.text) if not self._closed else 0)  # the beginning of a mark
        return given, self._closed

    def _member(self, held: Held, last: bool) -> str:
        """What leads to the next value, or the end of all."""
        opening = "" if self._begun else "{"
        found = fit((self._tags.key,), held.text)
        if isinstance(found, Fit):
            held.drop(found.end)
            self._key = (found.captured or "").strip()
            name = json.dumps(self._key, ensure_ascii=False)
            self._begun = True
            return f"{opening or ', '}{name}: "
        if found and not (last and not held.text.strip()):
            return ""
        ends = () if self._tags.end is None else (self._tags.end,)
        end = fit(ends, held.text)
        if end is True and not last:
            return ""
        if end:
            held.drop(end.end if isinstance(end, Fit) else len(held.text))
        self._closed = True
        return opening + "}"

    def _value(self, held: Held, last: bool) -> str:
        if only_text(self._parameters, self._key or ""):
            return self._text(held, last)
        return self._other(held, last)

    def _text(self, held: Held, last: bool) -> str:
        given = ""
        if not self._streams:
            if not held.text and not last:
                return ""
            if self._tags.lines and held.text.startswith("\n"):
                held.drop(1)
            given, self._streams = '"', True
        place = held.text.find(self._tags.close)
        text = held.take(place if place >= 0 else self._certain(held.text)).content
        if place >= 0 and self._tags.lines:
            text = text.removesuffix("\n")
        given += json.dumps(text, ensure_ascii=False)[1:-1]
        if place < 0:
            return given
        self._next(held)
        return given + '"'

    def _other(self, held: Held, last: bool) -> str:
        place = self._end.find(held.text, last)
        if place >= 0:
            value = held.take(place).content
            if self._tags.lines:
                value = value.removeprefix("\n").removesuffix("\n")
            given = json_of(self._parameters, self._key or "", value)
            self._next(held)
            return given
        return held.take(self._certain(held.text)).content.strip() if last else ""

    def _next(self, held: Held) -> None:
        held.drop(len(self._tags.close))
        self._key, self._streams, self._end = None, False, ValueEnd(self._tags.close)

    def _certain(self, text: str) -> int:
        """How much of a text is not the beginning of what ends it."""
        close = self._tags.close
        marks = (close, "\n" + close) if self._tags.lines else (close,)
        sizes = range(min(len(text), len(marks[-1])), 0, -1)
        held = (n for n in sizes if any(mark.startswith(text[-n:]) for mark in marks))
        return len(text) - next(held, 0)
