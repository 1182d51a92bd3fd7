"""Tool calls in a model's own form as a grammar, in llguidance's dialect of Lark. Pure."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from dev_opsgpt.engines.tag_grammar import members
from dev_opsgpt.engines.text_formats.form import Tags

Literal = Callable[[str], str]
"""Writes a text as the terminals of a grammar."""


class HeldCalls(msgspec.Struct, frozen=True):
    """Calls that a grammar holds the model to.

    ``heads`` are what a call of each tool begins with, ``schemas`` those of their arguments, which
    may stand between ``tags``, and ``end`` what stands behind them. With a ``trigger`` the text is
    free until that is written, and again after each call; without, it is one call and nothing
    else.
    """

    heads: Sequence[str]
    schemas: Sequence[dict[str, Any]]
    end: str = ""
    trigger: str = ""
    tags: Tags | None = None


def call_grammar(calls: HeldCalls, literal: Literal, options: Mapping[str, Any]) -> str:
    """The grammar. ``options`` are llguidance's for JSON. Raises ``RecursionError`` for schemas
    that are nested too deeply."""
    rules = [one_of("call", calls.heads, literal)]
    rules += arguments_of(calls.schemas, calls.tags, literal, options)
    end = f" {literal(calls.end)}" if calls.end else ""
    if not calls.trigger:
        return "\n".join((f"start: call{end}", *rules))
    trigger = literal(calls.trigger)
    # A mark of the tokenizer's is no text; a text is found where it is written first.
    lazy = "[lazy]" if trigger.startswith('"') else ""
    return "\n".join(
        (
            "start: held* TEXT",
            f"held: opening call{end}",
            f"opening{lazy}: TEXT {trigger}",
            "TEXT: /(.|\\n)*/",
            *rules,
        )
    )


def one_of(rule: str, heads: Sequence[str], literal: Literal) -> str:
    """The rule of a call of one of several tools: its head, and its arguments by the rules of
    ``arguments_of``."""
    calls = [f"{literal(head)} given_{place}" for place, head in enumerate(heads)]
    return f"{rule}: {' | '.join(calls)}"


def arguments_of(
    schemas: Sequence[dict[str, Any]],
    tags: Tags | None,
    literal: Literal,
    options: Mapping[str, Any],
) -> list[str]:
    """The rules of the arguments of each tool: JSON, or between ``tags``."""
    rules = []
    for place, schema in enumerate(schemas):
        if tags is None:
            rules.append(f"given_{place}: {json_rule(schema, options)}")
        else:
            rules += members(schema, tags, literal, options, f"given_{place}")
    return rules


def json_rule(schema: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """JSON of a schema."""
    return f"%json {json.dumps({**schema, 'x-guidance': options})}"


def literal(text: str, special: Mapping[str, int]) -> str:
    """A text as terminals: in quotes, but for special tokens, which have no text and are named by
    their ids."""
    names = sorted(special, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
    return " ".join(
        f"<[{special[part]}]>" if part in special else json.dumps(part, ensure_ascii=False)
        for part in parts
        if part
    )
