"""What a reader makes of a text that comes in pieces, for tests."""

from collections.abc import Iterable
from typing import Any

from dev_opsgpt.engines.text_formats.choose import reader_of
from dev_opsgpt.engines.text_formats.form import Form, Tools
from dev_opsgpt.worker.engine import Delta

Found = tuple[str, str, list[tuple[str, str]]]
"""Content, reasoning, and the calls with their arguments."""


def read(
    form: Form, pieces: Iterable[str], tools: Tools, reason: str = "stop", **fields: Any
) -> tuple[Found, str]:
    """What is found, and the finish reason."""
    reader = reader_of(form, tools, **fields)
    deltas = [out for piece in pieces for out in reader.feed(Delta(content=piece))]
    deltas += reader.end()
    calls: list[tuple[str, str]] = []
    for piece in (call for delta in deltas for call in delta.tool_calls):
        if piece.index == len(calls):
            assert piece.id
            calls.append((piece.name or "", ""))
        name, arguments = calls[piece.index]
        calls[piece.index] = (name, arguments + piece.arguments)
    content = "".join(delta.content for delta in deltas)
    reasoning = "".join(delta.reasoning for delta in deltas)
    return (content, reasoning, calls), reader.finish(reason)
