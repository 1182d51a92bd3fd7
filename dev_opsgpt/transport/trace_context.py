"""W3C Trace Context: the headers ``traceparent`` and ``tracestate``, checked. Pure.

Source: https://www.w3.org/TR/trace-context/
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
# Of a tracestate at least this much must be passed on; what is longer is not.
LONGEST_STATE = 512
MOST_MEMBERS = 32

# Later versions may have more after the flags; the first four fields stay what they are.
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?")
_KEY = rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_MEMBER = re.compile(_KEY + rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16


class TraceContext(NamedTuple):
    """A caller's place in a trace. ``parent`` and ``state`` are the headers' values as they came,
    ``state`` empty for none."""

    parent: bytes
    state: bytes
    trace_id: int
    span_id: int
    sampled: bool

    @property
    def lines(self) -> bytes:
        """Both headers as lines of an HTTP head, each with its CRLF."""
        state = b"tracestate: %b\r\n" % self.state if self.state else b""
        return b"traceparent: %b\r\n%b" % (self.parent, state)


def context_of(headers: Mapping[bytes, bytes]) -> TraceContext | None:
    """The caller's trace context out of a request's headers, whose names are in lower case. None
    where there is none, or one that is malformed; a malformed ``tracestate`` alone is left out."""
    parent = headers.get(TRACEPARENT)
    if parent is None:
        return None
    return _parsed(parent, headers.get(TRACESTATE, b""))


def _parsed(parent: bytes, state: bytes) -> TraceContext | None:
    found = _PARENT.fullmatch(parent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    sampled = bool(int(flags, 16) & 1)
    return TraceContext(parent, _checked(state), int(trace_id, 16), int(span_id, 16), sampled)


def _checked(state: bytes) -> bytes:
    """The state where it is well formed, empty where it is not."""
    members = [member.strip(b" \t") for member in state.split(b",")]
    members = [member for member in members if member]
    kept = b",".join(members)
    if len(members) > MOST_MEMBERS or len(kept) > LONGEST_STATE:
        return b""
    keys = {member.partition(b"=")[0] for member in members}
    if len(keys) != len(members) or not all(map(_MEMBER.fullmatch, members)):
        return b""
    return kept
