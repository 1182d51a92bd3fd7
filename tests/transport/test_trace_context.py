import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.transport.trace_context import context_of

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01".encode()


def test_a_context() -> None:
    found = context_of({b"accept": b"*/*", b"traceparent": PARENT, b"tracestate": b"a=1"})
    assert found is not None
    assert found.trace_id == int(TRACE_ID, 16)
    assert found.span_id == 0x00F067AA0BA902B7
    assert found.sampled
    assert found.lines == b"traceparent: %b\r\ntracestate: a=1\r\n" % PARENT


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"00",
        PARENT.upper(),
        PARENT + b"-more",
        b"ff" + PARENT[2:],
        PARENT.replace(TRACE_ID.encode(), b"0" * 32),
        PARENT.replace(b"00f067aa0ba902b7", b"0" * 16),
        PARENT.replace(b"-01", b"-1"),
        b" " + PARENT,
        PARENT + b"\n",
    ],
)
def test_malformed_contexts_are_none(parent: bytes) -> None:
    assert context_of({b"traceparent": parent}) is None


def test_a_state_alone_is_none() -> None:
    assert context_of({}) is None
    assert context_of({b"tracestate": b"a=1"}) is None


@pytest.mark.parametrize("parent", [b"01" + PARENT[2:], b"cc" + PARENT[2:] + b"-what-is-to-come"])
def test_later_versions_are_read_as_far_as_they_are_known(parent: bytes) -> None:
    found = context_of({b"traceparent": parent})
    assert found is not None
    assert found.sampled


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (b"a=1,b=2", b"a=1,b=2"),
        (b"a=1,,b=2", b"a=1,b=2"),
        (b"a=1 ,\t b=2", b"a=1,b=2"),
        (b"tenant@vendor=x;y:z", b"tenant@vendor=x;y:z"),
        (b"a=1,a=2", b""),
        (b"A=1", b""),
        (b"a", b""),
        (b"a=1\r\nx: y", b""),
        (b"a=" + b"x" * 600, b""),
        (b",".join(b"k%d=1" % n for n in range(33)), b""),
    ],
)
def test_states(state: bytes, kept: bytes) -> None:
    found = context_of({b"traceparent": PARENT, b"tracestate": state})
    assert found is not None
    assert found.state == kept


@given(st.binary(max_size=120), st.binary(max_size=600))
def test_nothing_that_comes_can_make_a_header(parent: bytes, state: bytes) -> None:
    for first in (parent, PARENT):
        found = context_of({b"traceparent": first, b"tracestate": state})
        if found is not None:
            lines = found.lines.split(b"\r\n")
            assert lines.pop() == b""
            assert len(lines) <= 2
            assert all(32 <= byte < 127 for line in lines for byte in line)
