"""gpt-oss: messages in channels, between marks of their own ("harmony").

``<|channel|>analysis<|message|>...<|end|>`` is reasoning; ``commentary`` with a recipient
``to=functions.name`` is a call, and without one it is said before a call; ``final`` is the answer.
Further messages begin with ``<|start|>assistant``. The recipient may stand before the channel or
behind it, and ``<|constrain|>json`` at the end. Source: OpenAI's description of the format, and the
chat template of gpt-oss.
"""

import re
from collections.abc import Iterator

from dev_opsgpt.engines.text_formats.form import Form, Tools
from dev_opsgpt.engines.text_formats.held import Held
from dev_opsgpt.engines.text_formats.pattern import beginnings
from dev_opsgpt.worker.engine import Delta, ToolCallDelta
from dev_opsgpt.worker.openai_stream import new_call_id

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"

HARMONY = Form(
    name="harmony",
    think=(f"{CHANNEL}analysis{MESSAGE}", END),
    call=f"{CHANNEL}commentary to=functions.{{name}} {CONSTRAIN}json{MESSAGE}{{arguments}}{CALL}",
    forced=f"{CHANNEL}commentary to=functions",
    direct=f"{CHANNEL}final{MESSAGE}",
    channels=True,
    tokens=frozenset((START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN)),
)

_LEADS = (START, CHANNEL, CONSTRAIN, MESSAGE, "to=")
"""What the head of a message may begin with."""
_HEAD = re.compile(
    rf"(?:{'|'.join(map(re.escape, (START, CHANNEL, CONSTRAIN)))}|[\w\s.=:/-])*+"
    rf"(?:(?P<end>{re.escape(MESSAGE)})|<(?:\|\w*\|?)?\Z|\Z)"
)
"""A whole head, or the beginning of one."""
_ENDS = (END, CALL, RETURN, START)
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_CHANNEL = re.compile(re.escape(CHANNEL) + r"\s*(\w+)")
_END = re.compile("|".join(map(re.escape, _ENDS)))


class ChannelReader:
    """Takes generated text and its log probabilities, gives deltas: see ``FormReader``.

    A message to a tool that there is not is content, with its head. So is text without a head.
    """

    def __init__(self, tools: Tools, *, parallel: bool = True) -> None:
        self._tools = tools
        self._parallel = parallel
        self._held = Held()
        self._calls = 0
        self._tail = beginnings(_ENDS)
        self._state = self._in_head
        self._empty = True  # the call has no arguments yet
        self.reasoning = False

    @property
    def done(self) -> bool:
        """Whether the only call allowed has been made."""
        return self._calls > 0 and not self._parallel and self._state != self._in_call

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """What the content of ``delta`` makes certain."""
        self._held.add(delta)
        yield from self._read(last=False)

    def end(self) -> Iterator[Delta]:
        """What was held back."""
        yield from self._read(last=True)

    def finish(self, reason: str) -> str:
        """``tool_calls`` where there are calls and the text came to its end."""
        return "tool_calls" if self._calls and reason == "stop" else reason

    def _read(self, *, last: bool) -> Iterator[Delta]:
        moving = True
        while moving and self._held.text and not self.done:
            before = (self._state, len(self._held.text))
            found = self._state(last)
            if found != Delta():
                yield found
            moving = (self._state, len(self._held.text)) != before

    # The states. Each takes what is certain of the held text.

    def _in_head(self, last: bool) -> Delta:
        text = self._held.text
        bare = text.lstrip()
        head = _HEAD.match(text)
        if head is None or not any(bare.startswith(one) or one.startswith(bare) for one in _LEADS):
            self._state = self._in_content  # there is none
            return self._held.take(len(START) if text.startswith(START) else 0)
        if head["end"]:
            return self._headed(text[: head.start("end")], head.end())
        if not last:
            return Delta()
        if text.lstrip().startswith("<"):
            self._held.drop(len(text))  # a head that was cut off
        return self._held.take(len(text))

    def _headed(self, head: str, size: int) -> Delta:
        channel = _CHANNEL.search(head)
        recipient = _RECIPIENT.search(head)
        if recipient is not None:
            if recipient[1] not in self._tools:
                self._state = self._in_content
                return self._held.take(size)
            self._held.drop(size)
            self._state, self._empty = self._in_call, True
            self._calls += 1
            return Delta(tool_calls=[ToolCallDelta(self._calls - 1, new_call_id(), recipient[1])])
        self._held.drop(size)
        self.reasoning = channel is not None and channel[1] == "analysis"
        self._state = self._in_reasoning if self.reasoning else self._in_content
        return Delta()

    def _in_content(self, last: bool) -> Delta:
        return self._body(last)

    def _in_reasoning(self, last: bool) -> Delta:
        return Delta(reasoning=self._body(last).content)

    def _in_call(self, last: bool) -> Delta:
        piece = self._body(False).content
        if last and self._state == self._in_call:
            self._held.drop(len(self._held.text))  # the beginning of a mark
        if self._empty and not piece and self._state != self._in_call:
            piece = "{}"
        self._empty = self._empty and not piece
        return Delta(tool_calls=[ToolCallDelta(self._calls - 1, arguments=piece)] if piece else [])

    def _body(self, last: bool) -> Delta:
        """The text of a message, up to the mark that ends it."""
        text = self._held.text
        end = _END.search(text)
        if end is None:
            found = self._tail.search(text)
            return self._held.take(len(text) if last or found is None else found.start())
        shown = self._held.take(end.start())
        if end[0] != START:  # the head of the next message
            self._held.drop(len(end[0]))
        self._state, self.reasoning = self._in_head, False
        return shown
