"""How many tokens an answer cost, read from its bytes; and what counting changes in a stream.

A server tells the usage of a stream only when it is asked to (``stream_options.include_usage``):
in one more chunk, whose ``choices`` are empty, while the other chunks may carry ``"usage":null``.
The gateway asks for every stream, so that all of them are counted, and takes out again what the
client did not ask for. Source: OpenAI's API reference, "chat/completions/streaming".
"""

import re
from collections.abc import Iterator

import msgspec

from dev_opsgpt.gateway.peek import with_field
from dev_opsgpt.protocol import sse

_ASK = b'"stream_options":{"include_usage":true},'
_KEY = b'"usage"'
_MEMBER = re.compile(_KEY)
_OBJECT = re.compile(rb'"usage"\s*:\s*\{')
_EVENT_END = re.compile(rb"(\r?\n\r?\n)")
# Bytes at each end of a long piece in which usage is looked for: several events.
SEARCHED = 2048
# Larger counts are nonsense, and more than the database's column takes.
_MOST = 2**31 - 1
_NO_VALUE = msgspec.Raw()
# `"usage":null` with the comma before it, as most servers write it: last in the event's object, or
# followed by plain texts only.
#
# A quote inside a JSON string has a backslash before it. The first quote here has a comma or white
# space before it, so it begins or ends a string; it does not end one, since no JSON goes on with
# `usage` after a string. So this is a member's name, never text of an answer. What follows up to
# the end of the event closes one object only, so the member is the event's own and not that of an
# object in it. Without member and comma the object is as valid as before.
_NULL = re.compile(rb',\s*"usage"\s*:\s*null(?=(?:,\s*"\w+"\s*:\s*"[^"\\\n]*")*\s*\}\r?\n\r?\n)')


class Tokens(msgspec.Struct, frozen=True):
    """What a server says an answer cost; None where it does not say. ``cached`` is the part of
    ``prompt`` that it did not have to compute."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None


_NOTHING = Tokens()


class _Details(msgspec.Struct):
    cached_tokens: int | float | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | float | None = None
    completion_tokens: int | float | None = None
    total_tokens: int | float | None = None
    prompt_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | float | None = None
    """DeepSeek's name for the cached tokens."""


class _Answer(msgspec.Struct):
    usage: msgspec.Raw = _NO_VALUE


class _Told(msgspec.Struct):
    """An answer as nearly all are: read in one go."""

    usage: _Usage | None = None


class _Chunk(msgspec.Struct):
    usage: msgspec.Raw = _NO_VALUE
    choices: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


_answers = msgspec.json.Decoder(_Answer)
_told = msgspec.json.Decoder(_Told)
_chunks = msgspec.json.Decoder(_Chunk)
_usages = msgspec.json.Decoder(_Usage | None)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
# What decoding raises; such bytes are passed on as they came.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def wants_usage(options: bytes | None) -> bool:
    """Whether a client asked for usage. ``options`` is the JSON of ``stream_options`` as it came,
    None where there is none."""
    return _include_usage(options) == b"true"


def ask(body: bytes, options: bytes | None) -> bytes:
    """The body of a streamed request, asking for usage. ``body`` is a JSON object with at least
    one field, ``options`` as above. What is not as OpenAI has it is left for the worker to
    refuse."""
    if options is None:
        start = body.index(b"{") + 1
        return body[:start] + _ASK + body[start:]
    if bytes(options) == b"null":
        options = b"{}"
    if _include_usage(options) not in (b"", b"false", b"null"):
        return body
    return with_field(body, "stream_options", with_field(options, "include_usage", b"true"))


def _include_usage(options: bytes | None) -> bytes | None:
    """The JSON of ``include_usage``, empty where it is not there; None without an object."""
    try:
        fields = _fields.decode(options) if options is not None else None
    except _UNREADABLE:
        fields = None
    return bytes(fields.get("include_usage", b"")) if fields is not None else None


def usage_of(body: bytes) -> Tokens | None:
    """The usage that a plain answer tells; None where it tells none or is not JSON."""
    try:
        return _as_tokens(_told.decode(body).usage)
    except _UNREADABLE:
        pass
    try:
        return _tokens(_answers.decode(body).usage)
    except _UNREADABLE:
        return None


class UsageFilter:
    """One stream's usage: read, and taken out unless the client ``asked`` for it.

    ``tokens`` is the last usage seen, None before. Of a client that did not ask, the usage chunk
    is dropped and a ``usage`` elsewhere is taken out of its chunk; all else stays as it came.
    """

    __slots__ = ("_asked", "tokens")

    def __init__(self, *, asked: bool) -> None:
        self._asked = asked
        self.tokens: Tokens | None = None

    def feed(self, events: bytes) -> bytes:
        """Takes one or more whole events, gives what to pass on: possibly nothing. What a stream
        that broke off leaves of an event may come too.

        Runs for every chunk of every stream; those without usage cost one search.
        """
        if len(events) > 2 * SEARCHED and _KEY not in events[:SEARCHED]:
            # Many events in one piece. To search them all costs more than to pass them on, and
            # servers that tell usage do so in every event, or near the end.
            if _KEY not in events[-SEARCHED:]:
                return events
            end = sse.whole_events(events[:-SEARCHED])
            return events[:end] + self._take(events[end:])
        return self._take(events)

    def _take(self, events: bytes) -> bytes:
        if _KEY not in events:
            return events
        if not self._asked:
            events = _NULL.sub(b"", events)
        told = (_OBJECT if self._asked else _MEMBER).search(events)
        if told is None:
            return events
        start = sse.whole_events(events[: told.start()])
        rest = b"".join(map(self._read, _split(events[start:])))
        return events if self._asked else events[:start] + rest

    def _read(self, event: bytes) -> bytes:
        """Notes an event's usage; gives what is left of it for a client that did not ask."""
        if _KEY not in event:
            return event
        payload = _data(event)
        try:
            chunk = _chunks.decode(payload)
            self.tokens = _tokens(chunk.usage) or self.tokens
            if self._asked or not chunk.usage:
                return event
            if bytes(chunk.usage) != b"null" and chunk.choices in ([], None):
                return b""
            return _with_data(event, _without_usage(payload))
        except _UNREADABLE:
            return event


def _split(events: bytes) -> Iterator[bytes]:
    """The events one by one, and what comes after the last."""
    parts = _EVENT_END.split(events)
    for index in range(0, len(parts) - 1, 2):
        yield parts[index] + parts[index + 1]
    if parts[-1]:
        yield parts[-1]


def _data(event: bytes) -> bytes:
    if event.startswith(b"data:") and b"\n" not in event.rstrip():
        # One line of data, its end still to come or not. JSON may have white space around it.
        return event[5:]
    return b"\n".join(sse.Decoder().feed(event))


def _with_data(event: bytes, payload: bytes) -> bytes:
    """The event with other data; its other fields stay."""
    lines = event.split(b"\n")
    others = [line + b"\n" for line in lines if line.strip() and not line.startswith(b"data:")]
    end = b"\r\n" if event.endswith(b"\r\n") else b"\n"
    return b"".join([*others, b"data: ", payload, end, end])


def _without_usage(chunk: bytes) -> bytes:
    fields = _fields.decode(chunk)
    del fields["usage"]
    return msgspec.json.encode(fields)


def _tokens(usage: msgspec.Raw) -> Tokens | None:
    """None where nothing is told, or not as OpenAI tells it."""
    try:
        return _as_tokens(_usages.decode(usage)) if usage else None
    except _UNREADABLE:
        return None


def _as_tokens(found: _Usage | None) -> Tokens | None:
    if found is None:
        return None
    details = found.prompt_tokens_details
    cached = details.cached_tokens if details is not None else None
    prompt = found.prompt_tokens
    if prompt is None and found.completion_tokens is None:
        # What generates nothing, a reranker say, may tell one number only.
        prompt = found.total_tokens
    tokens = Tokens(
        _count(prompt),
        _count(found.completion_tokens),
        _count(cached if cached is not None else found.prompt_cache_hit_tokens),
    )
    return tokens if tokens != _NOTHING else None


def _count(number: int | float | None) -> int | None:
    return int(number) if number is not None and 0 <= number <= _MOST else None
