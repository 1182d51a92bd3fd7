"""The access log: one line a request, when it is over, as text or as JSON."""

import re
from typing import Any

import msgspec

from dev_opsgpt.protocol.record import Record
from dev_opsgpt.transport.log_writer import LogWriter
from dev_opsgpt.transport.logs import Format, envelope
from dev_opsgpt.transport.masking import mask

NAME = "access"
# A record's fields in the order of the line; those that are empty are left out.
FIELDS = (
    "request_id",
    "client",
    "path",
    "status",
    "error",
    "model",
    "served",
    "replica",
    "key",
    "owner",
    "stream",
    "attempts",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cost",
    "queued",
    "first_token",
    "generating",
    "duration",
)
_SECONDS = frozenset({"queued", "first_token", "generating", "duration"})
# Of these the client chose, or may have chosen, the words: a key in the wrong place, say.
_FOREIGN = frozenset({"request_id", "model", "served", "error", "owner"})
_BARE = re.compile(r"[^\s\"=\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class AccessLog:
    """Writes a line for every record. ``add`` costs the event loop next to nothing: the line is
    made and written in the writer's thread."""

    def __init__(self, writer: LogWriter, form: Format = "text") -> None:
        self._writer = writer
        self._render = as_json if form == "json" else as_text

    def add(self, record: Record) -> None:
        """Takes the record of a request that is over, which is not changed any more."""
        self._writer.write_later(self._render, record)


def as_text(record: Record) -> str:
    """``<time> INFO access: request_id=... client=... path=... status=...``: pairs, quoted as in
    JSON where a value has a space or worse. The time is that of the end, in UTC."""
    head = envelope(record.at + record.duration, "INFO", NAME)
    pairs = " ".join(f"{name}={_bare(value)}" for name, value in _fields(record).items())
    return f"{head['time']} INFO {NAME}: {pairs}"


def as_json(record: Record) -> str:
    """The same as an object, in the envelope of all log lines."""
    found = envelope(record.at + record.duration, "INFO", NAME) | _fields(record)
    return msgspec.json.encode(found).decode()


def _fields(record: Record) -> dict[str, Any]:
    found = {}
    for name in FIELDS:
        value = getattr(record, name)
        if value is None or value == "" or value is False:
            continue
        if name in _SECONDS:
            value = round(value, 6)
        elif name in _FOREIGN:
            value = mask(value)
        found[name] = value
    return found


def _bare(value: Any) -> str:
    if not isinstance(value, str):
        return "true" if value is True else str(value)
    if _BARE.fullmatch(value):
        return value
    # Line ends that JSON leaves alone must not end this line either.
    quoted = msgspec.json.encode(value).decode()
    return re.sub(r"[\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", quoted)
