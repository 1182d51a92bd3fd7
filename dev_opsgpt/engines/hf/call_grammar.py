"""Tool calls in a model's own form as a grammar, in llguidance's dialect of Lark. Pure."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec


class HeldCalls(msgspec.Struct, frozen=True):
    """Calls that a grammar holds the model to.

    ``heads`` are what a call of each tool begins with, ``schemas`` those of their arguments,
    ``end`` what stands behind them. With a ``trigger`` the text is free until that is written, and
    again after each call; without, it is one call and nothing else.
    """

    heads: Sequence[str]
    schemas: Sequence[dict[str, Any]]
    end: str = ""
    trigger: str = ""


def call_grammar(calls: HeldCalls, literal: Callable[[str], str], options: dict[str, Any]) -> str:
    """The grammar. ``literal`` writes a text as the grammar's terminals; ``options`` are
    llguidance's for JSON. Raises ``RecursionError`` for schemas that are nested too deeply."""
    rules = [
        f"call_{place}: {literal(head)} %json {json.dumps({**schema, 'x-guidance': options})}"
        for place, (head, schema) in enumerate(zip(calls.heads, calls.schemas, strict=True))
    ]
    any_call = " | ".join(f"call_{place}" for place in range(len(rules)))
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
