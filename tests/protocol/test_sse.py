"""Server-sent events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.protocol.sse import DONE, Decoder, event, whole_events

LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1).map(str.encode)


@given(st.lists(LINE, max_size=6), st.lists(st.integers(1, 9), min_size=1))
def test_events_survive_any_cut(payloads: list[bytes], cuts: list[int]) -> None:
    data = b"".join(event(payload) for payload in payloads) + DONE
    decoder, found, at, turn = Decoder(), [], 0, 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        found += decoder.feed(data[at : at + step])
        at, turn = at + step, turn + 1
    assert found == [*payloads, b"[DONE]"]


@pytest.mark.parametrize(
    ("data", "payloads"),
    [
        (b"data: a\r\n\r\ndata:b\r\n\r\n", [b"a", b"b"]),
        (b": comment\n\nevent: x\ndata: a\nid: 1\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:  a\n\n", [b" a"]),
        (b"\n\n\ndata: a\n\n", [b"a"]),
        (b"data: unfinished", []),
    ],
)
def test_the_standard_s_rules(data: bytes, payloads: list[bytes]) -> None:
    assert list(Decoder().feed(data)) == payloads


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"", 0),
        (b"\n", 0),
        (b"data: a", 0),
        (b"data: a\n", 0),
        (b"data: a\n\n", 9),
        (b"data: a\n\ndata: b", 9),
        (b"\n\ndata: b", 2),
        (b"data: a\r\n\r\n", 11),
        (b"data: a\r\n\r\ndata", 11),
        (b"data: a\r\n\r", 0),
    ],
)
def test_whole_events(data: bytes, whole: int) -> None:
    assert whole_events(data) == whole


@given(st.lists(LINE, max_size=4), st.integers(0, 60))
def test_a_cut_stream_s_whole_events(payloads: list[bytes], cut: int) -> None:
    data = b"".join(event(payload) for payload in payloads)[:cut]
    end = whole_events(data)
    assert data[:end].endswith(b"\n\n") or end == 0
    assert b"\n\n" not in data[end:]
