"""An answer that is either JSON of a form or tool calls: its grammar, and its text read back.

OpenAI's ``response_format`` beside tools that the model may call: it says what the content has to
be where there is any, and a call is none. The model decides with what it writes first.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from dev_opsgpt.engines.forced_tools import Places, call_schema, parameters_of
from dev_opsgpt.engines.text_formats.form import Form, Writing
from dev_opsgpt.engines.text_formats.reader import FormReader
from dev_opsgpt.engines.text_reader import JsonReader, TextReader
from dev_opsgpt.worker.engine import Delta


class JsonOrCalls(msgspec.Struct, frozen=True):
    """What an answer is held to: ``schema``, or calls of ``tools`` as ``form`` writes them."""

    schema: dict[str, Any]
    tools: Places
    form: Form
    parallel: bool = True

    def lark(self, special: Mapping[str, int], spacing: Mapping[str, Any]) -> str:
        """The grammar in llguidance's dialect of Lark.

        ``special`` are the marks of the form that are special tokens, by their ids, which a grammar
        names because they have no text. ``spacing`` is llguidance's option for JSON. Raises
        ``InvalidRequest`` for parameters that are not those of an object.
        """
        rules = ["start: json", f"json: {_json(self.schema, spacing)}"]
        for number, writing in enumerate(self.form.writings):
            rules[0] += f" | calls{number}"
            rules += self._rules(writing, number, special, spacing)
        return "\n".join(rules)

    def reader(self) -> TextReader:
        """Who reads the answer."""
        names = {tool.function.name for tool, _ in self.tools}
        return JsonOrCallsReader(self.form, FormReader(self.form, names, parallel=self.parallel))

    def _rules(
        self,
        writing: Writing,
        number: int,
        special: Mapping[str, int],
        spacing: Mapping[str, Any],
    ) -> Iterator[str]:
        call = f"call{number}"
        texts = ("begin", "before", "sign", "after", "between", "end")
        begin, before, sign, after, between, end = (
            _literal(getattr(writing, name), special) for name in texts
        )
        more = f" ({between} {call})*" if self.parallel else ""
        yield f"calls{number}: {begin} {call}{more} {end}"
        if writing.key is not None:
            schema = call_schema(self.tools, key=writing.key)
            yield f"{call}: {before} body{number} {after}"
            yield f"body{number}: {_json(schema, spacing)}"
            return
        chosen = []
        for place, (tool, path) in enumerate(self.tools):
            name = f"arguments{number}_{place}"
            chosen.append(f"{_literal(tool.function.name, {})} {sign} {name}")
            yield f"{name}: {_json(parameters_of(tool, path), spacing)}"
        yield f"{call}: {before} ({' | '.join(chosen)}) {after}"


class JsonOrCallsReader:
    """Reads such an answer: calls where it begins as they do, else JSON.

    Inside of JSON nothing is looked for, whatever its strings hold.
    """

    def __init__(self, form: Form, calls: FormReader) -> None:
        self._form = form
        self._calls = calls
        self._json = JsonReader()
        self._held: list[Delta] = []
        self._chosen: TextReader | None = None

    reasoning = False

    @property
    def done(self) -> bool:
        """Whether the only call allowed has been made."""
        return self._chosen is not None and self._chosen.done

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """What ``delta`` makes certain."""
        if self._chosen is None:
            self._held.append(delta)
            self._chosen = self._choice("".join(held.content for held in self._held).lstrip())
            yield from self._replayed()
        else:
            yield from self._given(delta)

    def end(self) -> Iterator[Delta]:
        """What was held back."""
        if self._chosen is None:
            self._chosen = self._json
            yield from self._replayed()
        yield from self._checked(self._chosen.end())

    def finish(self, reason: str) -> str:
        """``tool_calls`` for calls, else the reason. Raises ``InternalError`` for content that is
        no JSON although nothing cut it off."""
        reason = self._calls.finish(reason)
        return reason if reason == "tool_calls" else self._json.finish(reason)

    def _choice(self, text: str) -> TextReader | None:
        """Who reads an answer that begins so; None where more must be seen."""
        if (self._form.bare and text.startswith("{")) or text.startswith(self._form.opens):
            return self._calls
        return None if any(mark.startswith(text) for mark in self._form.opens) else self._json

    def _replayed(self) -> Iterator[Delta]:
        if self._chosen is not None:
            held, self._held = self._held, []
            for delta in held:
                yield from self._given(delta)

    def _given(self, delta: Delta) -> Iterator[Delta]:
        if self._chosen is self._calls:
            yield from self._checked(self._calls.feed(delta))
        else:
            yield from self._json.feed(delta)

    def _checked(self, deltas: Iterator[Delta]) -> Iterator[Delta]:
        """Content beside calls, seen by the one who tells whether it is JSON."""
        for delta in deltas:
            yield from self._json.feed(delta)


def _json(schema: Mapping[str, Any], spacing: Mapping[str, Any]) -> str:
    return f"%json {msgspec.json.encode({**schema, 'x-guidance': spacing}).decode()}"


def _literal(text: str, special: Mapping[str, int]) -> str:
    """A text in Lark, special tokens in it by their ids."""
    names = sorted(special, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
    return " ".join(
        f"<[{special[part]}]>" if part in special else json.dumps(part, ensure_ascii=False)
        for part in parts
        if part
    )
