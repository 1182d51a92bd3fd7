"""Text of Hermes-style chat models (Hermes, Qwen, our own) taken apart: reasoning, content, calls.

The form: ``<think>...</think>`` may come first; a call is ``<tool_call>{"name", "arguments"}
</tool_call>``. llama.cpp has a parser for such text too; it ends the stream with an error where
the text does not fit the form, and here such text is just content.
"""

import json
import re
from collections.abc import Iterator, Set

from dev_opsgpt.worker.engine import Delta, TokenLogprob, ToolCallDelta
from dev_opsgpt.worker.openai_stream import new_call_id

CALL, CALL_END = "<tool_call>", "</tool_call>"
THINK, THINK_END = "<think>", "</think>"


def _tail(*tags: str) -> re.Pattern[str]:
    """What may be the beginning of a tag, with the blanks before it, at the end of a text."""
    beginnings = sorted({re.escape(t[:n]) for t in tags for n in range(1, len(t))}, key=len)
    return re.compile(rf"\s*(?:{'|'.join(reversed(beginnings))})?\Z")


_CONTENT_TAIL = _tail(THINK, CALL)
_REASONING_TAIL = _tail(THINK_END)


class HermesReader:
    """Takes generated text and its log probabilities, gives deltas.

    ``names`` are the tools there are: a call of another is content. ``thinking`` says that the
    prompt has already opened the reasoning, ``parallel`` that several calls may be made.
    """

    def __init__(self, names: Set[str], *, thinking: bool = False, parallel: bool = True) -> None:
        self._calls = 0
        self._names = names
        self._parallel = parallel
        self._state = "reasoning" if thinking else "content"
        self._buffer = ""
        self._logprobs: list[TokenLogprob] = []
        self._fresh = not thinking  # nothing but blanks so far: reasoning may still begin
        self._trim = thinking  # blanks at the beginning of a section belong to its tag
        self._steps = {
            "content": self._in_content,
            "reasoning": self._in_reasoning,
            "call": self._in_call,
        }

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """What the content of ``delta`` makes certain."""
        self._buffer += delta.content
        self._logprobs += delta.logprobs
        moving = True
        while moving and not self.done:
            before = (self._state, len(self._buffer))
            yield from self._steps[self._state]()
            moving = (self._state, len(self._buffer)) != before and bool(self._buffer)

    @property
    def done(self) -> bool:
        """Whether the only call allowed has been made."""
        return self._calls > 0 and not self._parallel

    def finish(self, reason: str) -> str:
        """``tool_calls`` where there are calls and the text came to its end."""
        return "tool_calls" if self._calls and reason == "stop" else reason

    def end(self) -> Iterator[Delta]:
        """What was held back. A call without its end tag counts if it is whole."""
        if self.done:
            return
        rest, self._buffer = self._buffer, ""
        if self._state == "call":
            yield from self._call(rest)
        elif rest and self._state == "reasoning":
            yield Delta(reasoning=rest)
        elif rest:
            yield from self._content(rest, last=True)

    def _in_content(self) -> Iterator[Delta]:
        text = self._buffer
        if self._trim:
            text = text.lstrip()
        think = text.find(THINK) if self._fresh and text.lstrip().startswith(THINK) else -1
        call = text.find(CALL)
        if think >= 0:
            self._enter("reasoning", text[think + len(THINK) :])
        elif call >= 0:
            self._enter("call", text[call + len(CALL) :])
            yield from self._content(text[:call].rstrip(), last=False)
        else:
            tail = _CONTENT_TAIL.search(text)
            keep = len(text) if tail is None else tail.start()
            self._buffer = text[keep:]
            yield from self._content(text[:keep], last=not self._buffer)

    def _in_reasoning(self) -> Iterator[Delta]:
        text = self._buffer.lstrip() if self._trim else self._buffer
        self._logprobs.clear()
        end = text.find(THINK_END)
        if end >= 0:
            self._enter("content", text[end + len(THINK_END) :])
            shown = text[:end].rstrip()
        else:
            tail = _REASONING_TAIL.search(text)
            keep = len(text) if tail is None else tail.start()
            self._buffer, shown = text[keep:], text[:keep]
        if shown:
            self._trim = self._trim and end >= 0
            yield Delta(reasoning=shown)

    def _in_call(self) -> Iterator[Delta]:
        self._logprobs.clear()
        text, end, rest = self._buffer.partition(CALL_END)
        if end:
            self._enter("content", rest)
            yield from self._call(text, CALL_END)

    def _enter(self, state: str, rest: str) -> None:
        self._state, self._buffer, self._trim, self._fresh = state, rest, True, False

    def _content(self, text: str, *, last: bool) -> Iterator[Delta]:
        if not text:
            return
        self._trim = False
        self._fresh = self._fresh and not text.strip()
        logprobs: list[TokenLogprob] = []
        if last:
            logprobs, self._logprobs = self._logprobs, []
        yield Delta(content=text, logprobs=logprobs)

    def _call(self, text: str, end: str = "") -> Iterator[Delta]:
        found = _parsed(text)
        if found is None or found[0] not in self._names:
            yield from self._content(f"{CALL}{text}{end}", last=False)
            return
        name, arguments = found
        yield Delta(tool_calls=[ToolCallDelta(self._calls, new_call_id(), name, arguments)])
        self._calls += 1


def _parsed(text: str) -> tuple[str, str] | None:
    """Name and arguments (JSON text of an object) of a call, if ``text`` is one."""
    try:
        call = json.loads(text)
        arguments = call["arguments"]
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        name = call["name"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(arguments, dict) or not isinstance(name, str):
        return None
    return name, json.dumps(arguments, ensure_ascii=False)
