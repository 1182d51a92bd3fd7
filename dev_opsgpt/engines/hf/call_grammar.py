"""Tool calls in a model's own form as a grammar, in llguidance's dialect of Lark. Pure."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dev_opsgpt.engines.hf.tag_grammar import members
from dev_opsgpt.engines.text_formats.form import Tags


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


def call_grammar(calls: HeldCalls, literal: Callable[[str], str], options: dict[str, Any]) -> str:
    """The grammar. ``literal`` writes a text as the grammar's terminals; ``options`` are
    llguidance's for JSON. Raises ``RecursionError`` for schemas that are nested too deeply."""
    rules = []
    for place, (head, schema) in enumerate(zip(calls.heads, calls.schemas, strict=True)):
        rules.append(f"call_{place}: {literal(head)} given_{place}")
        if calls.tags is None:
            rules.append(f"given_{place}: %json {json.dumps({**schema, 'x-guidance': options})}")
        else:
            rules += members(schema, calls.tags, literal, options, f"given_{place}")
    any_call = " | ".join(f"call_{place}" for place in range(len(calls.heads)))
    end = f" {literal(calls.end)}" if calls.end else ""
    if not calls.trigger:
        return "\n".join((f"start: call{end}", f"call: {any_call}", *rules))
    trigger = literal(calls.trigger)
    # A mark of the tokenizer's is no text; a text is found where it is written first.
    lazy = "[lazy]" if trigger.startswith('"') else ""
    return "\n".join(
        (
            "start: held* TEXT",
            f"held: opening call{end}",
            f"opening{lazy}: TEXT {trigger}",
            f"call: {any_call}",
            "TEXT: /(.|\\n)*/",
            *rules,
        )
    )
