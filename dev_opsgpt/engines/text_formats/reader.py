"""The reader of generated text: reasoning, content and tool calls, as a ``Form`` describes them.

Nothing here fails over what a model writes. What does not fit the form is content; a call is
certain once its name is a tool's and its arguments begin as an object, and from then on the
arguments are passed on as they come.
"""

import json
import re
import secrets
from collections.abc import Generator, Iterator

from dev_opsgpt.engines.text_formats.arguments import Arguments, JsonArguments, TaggedArguments
from dev_opsgpt.engines.text_formats.form import Form, Tools
from dev_opsgpt.engines.text_formats.held import Held
from dev_opsgpt.engines.text_formats.json_span import JsonSpan
from dev_opsgpt.engines.text_formats.pattern import Fit, beginnings, fit
from dev_opsgpt.worker.engine import Delta, ToolCallDelta
from dev_opsgpt.worker.openai_stream import new_call_id

_OBJECT = re.compile(r"\s*\[?\s*(?=\{)")


class FormReader:
    """Takes generated text and its log probabilities, gives deltas.

    ``tools`` are those there are, with the JSON schemas of their parameters: a call of another is
    content. ``thinking`` says that the prompt has already opened the reasoning, ``parallel`` that
    several calls may be made.
    ``reasoning`` tells whether the text given next belongs to the reasoning.
    """

    def __init__(
        self, form: Form, tools: Tools, *, thinking: bool = False, parallel: bool = True
    ) -> None:
        self._form = form
        self._tools = tools
        self._parallel = parallel
        self._opens = form.opens if tools else ()
        self._tail = beginnings((form.think[0], *self._opens))
        self._reasoning_tail = beginnings((form.think[1],))
        self._held = Held()
        self._calls = 0
        self._fresh = not thinking  # nothing but blanks so far: reasoning may still begin
        self._trim = thinking  # blanks at the beginning of a section belong to its tag
        self._state = self._in_reasoning if thinking else self._in_content
        self._arguments: Arguments = JsonArguments()
        self._span = JsonSpan()  # up to the end of the object that the arguments are in
        self._whole: tuple[JsonSpan, int] | None = None
        self._is_object = False

    @property
    def reasoning(self) -> bool:
        """Whether the reasoning goes on."""
        return self._state == self._in_reasoning

    @property
    def done(self) -> bool:
        """Whether the only call allowed has been made."""
        return self._calls > 0 and not self._parallel and self._state != self._in_arguments

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """What the content of ``delta`` makes certain."""
        self._held.add(delta)
        yield from self._read(last=False)

    def end(self) -> Iterator[Delta]:
        """What was held back. A call without its end mark counts if it is whole."""
        yield from self._read(last=True)

    def finish(self, reason: str) -> str:
        """``tool_calls`` where there are calls and the text came to its end."""
        return "tool_calls" if self._calls and reason == "stop" else reason

    def _read(self, *, last: bool) -> Iterator[Delta]:
        moving = True
        while moving and not self.done:
            before = (self._state, len(self._held.text))
            for delta in self._state(last):
                if delta != Delta():
                    yield delta
            moving = bool(self._held.text) and (self._state, len(self._held.text)) != before

    # The states. Each looks at what is held, and takes of it what is certain.

    def _in_reasoning(self, last: bool) -> Iterator[Delta]:
        start, end = self._form.think
        self._strip()
        text = self._held.text
        if self._trim and text.startswith(start):
            self._held.drop(len(start))  # some models open again what the prompt has opened
            return
        if self._trim and not last and start.startswith(text):
            return
        place = text.find(end)
        if place >= 0:
            shown = len(text[:place].rstrip())
        else:
            shown = len(text) if last else _before(self._reasoning_tail, text)
        yield Delta(reasoning=self._held.take(shown).content)
        self._trim = self._trim and not shown
        if place >= 0:
            self._held.drop(place + len(end) - shown)
            self._enter_content()

    def _in_content(self, last: bool) -> Iterator[Delta]:
        self._strip()
        text = self._held.text
        bare = text.lstrip()
        if self._fresh and bare.startswith(self._form.think[0]):
            self._held.drop(len(text) - len(bare) + len(self._form.think[0]))
            self._state, self._trim, self._fresh = self._in_reasoning, True, False
            return
        place, mark = self._opening(text)
        if place < 0:
            yield self._content(len(text) if last else _before(self._tail, text))
            return
        shown = len(text[:place].rstrip())
        if shown:
            self._whole = None
            yield self._content(shown)
        yield from self._at_call(place - shown, mark, last)

    def _in_arguments(self, last: bool) -> Iterator[Delta]:
        piece, complete = self._arguments.take(self._held, last)
        if piece:
            yield Delta(tool_calls=[ToolCallDelta(self._calls - 1, arguments=piece)])
        if complete:
            self._span = JsonSpan(depth=1)
            self._state = self._in_object if self._is_object else self._after_call

    def _in_object(self, last: bool) -> Iterator[Delta]:
        """Up to the brace that closes the object which the arguments are a part of."""
        end = self._span.end(self._held.text)
        self._held.drop(len(self._held.text) if end is None else end)
        if end is not None:
            self._state = self._after_call
        yield from ()

    def _after_call(self, last: bool) -> Iterator[Delta]:
        found = fit(self._form.ends, self._held.text)
        if found is True and not last:
            return
        self._drop(found)
        self._state = self._between_calls
        yield from ()

    def _between_calls(self, last: bool) -> Iterator[Delta]:
        close = fit(self._form.closes, self._held.text)
        more = fit(self._form.more, self._held.text)
        if isinstance(more, Fit) and (name := self._named(more)) is not None:
            yield from self._call(more, name)
            return
        if not last and not isinstance(close, Fit) and (close or more):
            return
        self._drop(close)
        if not isinstance(close, Fit):
            self._enter_content()

    def _drop(self, found: Fit | bool) -> None:
        """Forgets the mark that was found, or what there is of it at the end of the text."""
        if found:
            self._held.drop(found.end if isinstance(found, Fit) else len(self._held.text))

    # Their parts.

    def _opening(self, text: str) -> tuple[int, str]:
        """Where a call may begin, and by which mark; -1 for nowhere."""
        bare = len(text) - len(text.lstrip())
        if self._form.bare and self._tools and self._fresh and text.startswith("{", bare):
            return bare, ""
        found = [(text.find(mark), mark) for mark in self._opens if mark in text]
        return min(found, default=(-1, ""))

    def _at_call(self, place: int, mark: str, last: bool) -> Iterator[Delta]:
        start = place + len(mark)
        found = fit(self._form.heads, self._held.text, start)
        if isinstance(found, Fit):
            name = self._named(found)
            if name is not None:
                yield from self._call(found, name)
                return
        elif found and not last:
            return
        elif mark and self._form.objects:
            waits = yield from self._whole_call(start, last)
            if waits:
                return
        self._whole = None
        yield self._content(start if mark else start + 1)

    def _call(self, found: Fit, name: str) -> Iterator[Delta]:
        yield self._held.drop(found.end)
        yield self._begin(name)
        self._is_object = found.pattern in self._form.objects
        tags = self._form.tagged
        self._arguments = (
            JsonArguments() if tags is None else TaggedArguments(tags, self._tools[name])
        )
        self._state = self._in_arguments

    def _whole_call(self, start: int, last: bool) -> Generator[Delta, None, bool]:
        """A call as one JSON object with its keys in another order, or its arguments in a string.
        Says whether there is nothing more to do for now."""
        text = self._held.text
        head = _OBJECT.match(text, start)
        if head is None:
            return False
        span, read = self._whole or (JsonSpan(), head.end())
        end = span.end(text, read)
        self._whole = (span, len(text))
        if end is None:
            return not last
        found = _parsed(text[head.end() : end])
        if found is None or found[0] not in self._tools:
            return False
        self._whole = None
        yield self._held.drop(end)
        begun = self._begin(found[0])
        begun.tool_calls[0].arguments = found[1]
        yield begun
        self._state = self._after_call
        return True

    def _begin(self, name: str) -> Delta:
        id_ = secrets.token_hex(5)[:9] if self._form.short_ids else new_call_id()
        self._calls += 1
        self._fresh = False
        return Delta(tool_calls=[ToolCallDelta(self._calls - 1, id_, name)])

    def _named(self, found: Fit) -> str | None:
        """The tool whose call it is."""
        name = found.captured or ""
        if name.startswith('"'):
            try:
                name = json.loads(name)
            except ValueError:
                return None
        return name if name in self._tools else None

    def _content(self, count: int) -> Delta:
        found = self._held.take(count)
        self._trim = self._trim and not count
        self._fresh = self._fresh and not found.content.strip()
        return found

    def _enter_content(self) -> None:
        self._state, self._trim = self._in_content, True

    def _strip(self) -> None:
        if self._trim:
            text = self._held.text
            self._held.drop(len(text) - len(text.lstrip()))


def _before(tail: re.Pattern[str], text: str) -> int:
    """How many characters stand before what may be the beginning of a mark."""
    found = tail.search(text)
    return len(text) if found is None else found.start()


def _parsed(text: str) -> tuple[str, str] | None:
    """Name and arguments (JSON text of an object) of a call, if ``text`` is one."""
    try:
        call = json.loads(text)
        arguments = call["arguments"] if "arguments" in call else call["parameters"]
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        name = call["name"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(arguments, dict) or not isinstance(name, str):
        return None
    return name, json.dumps(arguments, ensure_ascii=False)
