"""An answer that is either JSON of a form or tool calls: its grammar, and its text read back.

OpenAI's ``response_format`` beside tools that the model may call: it says what the content has to
be where there is any, and a call is none. The model decides with what it writes first.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from dev_opsgpt.engines.call_grammar import Literal, arguments_of, json_rule, literal, one_of
from dev_opsgpt.engines.forced_tools import Places, call_schema, parameters_of
from dev_opsgpt.engines.tag_grammar import expressible
from dev_opsgpt.engines.text_formats.choose import reader_of
from dev_opsgpt.engines.text_formats.form import Form
from dev_opsgpt.engines.text_reader import JsonReader, TextReader
from dev_opsgpt.worker.engine import Delta


class JsonOrCalls(msgspec.Struct, frozen=True):
    """What an answer is held to: ``schema``, or calls of ``tools`` as ``form`` writes them."""

    schema: dict[str, Any]
    tools: Places
    form: Form
    parallel: bool = True

    @property
    def possible(self) -> bool:
        """Whether a grammar can say it: one needs to know how the calls are written, and between
        tags not everything can be asked for. Raises as ``lark`` does."""
        tags = self.form.tagged
        if not self.form.call:
            return False
        return tags is None or all(expressible(one, tags) for one in self._parameters())

    def lark(self, special: Mapping[str, int], spacing: Mapping[str, Any]) -> str:
        """The grammar in llguidance's dialect of Lark, where that is ``possible``.

        ``special`` are the marks of the form that are special tokens, by their ids. ``spacing`` is
        llguidance's option for JSON. Raises ``InvalidRequest`` for parameters that are not those of
        an object, ``RecursionError`` for what is nested too deeply.
        """
        form = self.form
        write = partial(literal, special=special)
        rules = [
            f"start: {write(form.direct)} json | calls {write(form.last)}",
            f"json: {json_rule(self.schema, spacing)}",
        ]
        if form.bare:
            rules += self._objects(spacing)
        else:
            rules += self._texts(write, spacing)
        more = " again*" if self.parallel and form.again else ""
        return "\n".join((*rules, f"calls: first{more}"))

    def reader(self) -> TextReader:
        """Who reads the answer."""
        tools = {tool.function.name: tool.function.parameters or {} for tool, _ in self.tools}
        return JsonOrCallsReader(self.form, reader_of(self.form, tools, parallel=self.parallel))

    def _texts(self, write: Literal, spacing: Mapping[str, Any]) -> Iterator[str]:
        """The rules of the first call and of one that follows."""
        form = self.form
        yield from arguments_of(self._parameters(), form.tagged, write, spacing)
        for rule, call in (("first", form.call.removesuffix(form.last)), ("again", form.again)):
            head, _, end = call.partition("{arguments}")
            heads = [head.replace("{name}", tool.function.name) for tool, _ in self.tools]
            if call:
                yield f"{rule}: {rule}_call {write(end)}"
                yield one_of(f"{rule}_call", heads, write)

    def _objects(self, spacing: Mapping[str, Any]) -> Iterator[str]:
        """The same for calls that are JSON objects and nothing else: llguidance, which has begun to
        read one as a text, would not go back to JSON that begins alike."""
        call = json.loads(self.form.call.replace("{arguments}", "null"))
        (key,) = (name for name, value in call.items() if value is None)
        yield f"first: {json_rule(call_schema(self.tools, key=key), spacing)}"
        yield f"again: {literal(self.form.again.removesuffix(self.form.call), {})} first"

    def _parameters(self) -> list[dict[str, Any]]:
        return [parameters_of(tool, path) for tool, path in self.tools]


class JsonOrCallsReader:
    """Reads such an answer: calls where it begins as they do, else JSON.

    Inside of JSON nothing is looked for, whatever its strings hold.
    """

    def __init__(self, form: Form, calls: TextReader) -> None:
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
        if self._form.channels:
            # Who reads those tells what is content.
            return self._calls
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
