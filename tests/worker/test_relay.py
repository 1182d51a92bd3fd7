"""Relayed streams: whole events only, and an end that says whether it is one."""

import pytest

from dev_opsgpt.protocol.errors import InvalidRequest, UpstreamFailed
from dev_opsgpt.worker import relay
from dev_opsgpt.worker.relay import Events, fields_of, model_of

FINISHED = b'data: {"choices":[{"finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def mask(text: str) -> str:
    return text.replace("secret", "***")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_whole_events_whatever_the_pieces(size: int, end: bytes) -> None:
    stream = (b'data: {"a": "\xe5\xa5\xbd"}' + end) * 3 + b"data: [DONE]" + end
    events = Events(mask)
    found = [events.feed(stream[i : i + size]) for i in range(0, len(stream), size)]
    for whole in found:
        assert whole == b"" or whole.endswith(end)
    assert b"".join(found) + events.end() == stream


def test_ends() -> None:
    for stream, last in (
        (FINISHED + DONE, b""),
        (FINISHED, DONE),
        (b'data: {"error":{}}\n\n', b""),
    ):
        events = Events(mask)
        events.feed(stream)
        assert events.end() == last
    # A last event that lacks its empty line is complete all the same.
    events = Events(mask)
    events.feed(FINISHED + b"data: [DONE]")
    assert events.end() == b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b'data: {"choices":[{"finish_reason": null}]}\n\n',
        b'data: {"text": "\\"finish_reason\\": \\"stop\\" data: [DONE]"}\n\n',
    ],
)
def test_a_stream_that_is_cut(stream: bytes) -> None:
    events = Events(mask)
    events.feed(stream)
    with pytest.raises(UpstreamFailed):
        events.end()


def test_errors_in_a_stream_are_masked() -> None:
    events = Events(mask)
    text = b'data: {"t": "secret"}\n\n'
    assert events.feed(text) == text
    assert events.feed(b'data: { "error": {"message": "secret"}}\n\n') == (
        b'data: { "error": {"message": "***"}}\n\n'
    )


def test_an_event_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "LONGEST_EVENT", 10)
    with pytest.raises(UpstreamFailed):
        Events(mask).feed(b"data: 1234567890")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b"\xff", None),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b"{}", "model"),
        (b'{"model": 3}', "model"),
        (b'{"model": "\xff"}', "model"),
    ],
)
def test_bad_bodies(body: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        model_of(fields_of(body))
    assert caught.value.param == param
