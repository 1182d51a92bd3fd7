"""What a format of tool calls consists of, as data for the one reader of all of them."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from dev_opsgpt.engines.text_formats.pattern import BLANK, OBJECT, QUOTED, Pattern, pattern

THINK = ("<think>", "</think>")

Tools = Mapping[str, Mapping[str, Any]]
"""The JSON schema of the parameters of each tool, by the tool's name."""


class Tags(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments that are no JSON object: each between tags of its own.

    ``key`` is what leads to a value and captures its name, ``close`` what ends it, ``end`` what
    may stand after the last one. Where a value stands on ``lines`` of its own, one line end on
    each side belongs to the tags. ``written`` is one argument, with ``{key}`` and ``{value}``, for
    a form with ``call``.
    """

    key: Pattern
    close: str
    written: str = ""
    end: Pattern | None = None
    lines: bool = False


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """A format, as the reader meets its parts from left to right.

    ``name`` is for people. ``think`` are the tags around reasoning. Calls begin with one of the
    marks ``opens``, or, where they are ``bare``, with the text itself. What leads from there to the
    arguments is one of ``heads``; those that begin a JSON object, to which the arguments belong,
    are among ``objects`` too. The arguments are a JSON object, unless they are ``tagged``. One of
    ``ends`` may close a call; then comes another call that begins like one of ``more``, or one of
    ``closes``, or content.

    ``call`` is a whole call with ``{name}`` and ``{arguments}``; empty where the text of calls is
    left to templates. Of several calls each after the first is written like ``again``, before that
    end of ``call`` that is ``last``; empty where there is one at a time. ``exact`` says that models
    write every call so, to the last blank. ``forced`` is what the prompt of a call that must be
    made ends with. ``direct`` is what an answer begins with that goes without reasoning.
    ``channels`` says that the text is divided into messages, which have a reader of their own.
    ``short_ids`` says that the chat template takes ids of calls of nine letters and digits only.
    ``tokens`` are further marks of the format that a tokenizer may have as special tokens.
    """

    name: str
    think: tuple[str, str] = THINK
    opens: tuple[str, ...] = ()
    bare: bool = False
    heads: tuple[Pattern, ...] = ()
    objects: tuple[Pattern, ...] = ()
    tagged: Tags | None = None
    ends: tuple[Pattern, ...] = ()
    more: tuple[Pattern, ...] = ()
    closes: tuple[Pattern, ...] = ()
    call: str = ""
    again: str = ""
    last: str = ""
    exact: bool = False
    forced: str = ""
    direct: str = ""
    channels: bool = False
    short_ids: bool = False
    tokens: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Form({self.name})"

    @property
    def marks(self) -> frozenset[str]:
        """All that is text here although it may be special tokens."""
        return self.tokens.union(self.think, self.opens)

    @property
    def example(self) -> str:
        """How to call a tool, to tell a model whose template does not; empty without ``call``."""
        arguments = "an object"
        if self.tagged is not None:
            arguments = self.tagged.written.replace("{key}", "a parameter")
            arguments = arguments.replace("{value}", "its value")
        return self.call.replace("{name}", "the name").replace("{arguments}", arguments)

    def written(self, name: str, arguments: Mapping[str, Any]) -> str:
        """A call as the model writes it, for a form with ``call``."""
        text = json.dumps(arguments, ensure_ascii=False)
        if self.tagged is not None:
            one = self.tagged.written
            pairs = ((key, _value(value)) for key, value in arguments.items())
            text = "".join(one.replace("{key}", k).replace("{value}", v) for k, v in pairs)
        return self.call.replace("{name}", name).replace("{arguments}", text)


PLAIN = Form(name="plain")
"""No tool calls that could be told from text; reasoning in ``<think>`` tags."""


def object_head(
    *before: object, key: str, first: tuple[object, ...] = (), name: str = "name"
) -> Pattern:
    """The head of a call ``{name: ..., key: {`` after ``before``, with ``first`` in front of the
    name."""
    named = (f'"{name}"', BLANK, ":", BLANK, QUOTED, BLANK, ",", BLANK)
    arguments = (f'"{key}"', BLANK, ":", BLANK, OBJECT)
    return pattern(*before, "{", BLANK, *first, *named, *arguments)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
