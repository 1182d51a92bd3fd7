"""Usage in streams: asked for, read, and taken out where the client did not ask."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dev_opsgpt.gateway.peek import peek
from dev_opsgpt.gateway.stream_usage import Tokens, UsageFilter, ask, usage_of, wants_usage

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 5},
}
FOUND = Tokens(12, 7, 5)
DONE = b"data: [DONE]\n\n"
# Texts that look like what the filter looks for.
TRAPS = ['"usage":null', ',"usage":null}\n\n', ', "usage": null}', '"usage":{"a":1}', '\\"usage"']
TEXT = st.text(max_size=5) | st.sampled_from(TRAPS)
KEY = st.sampled_from(["usage", "id", "a"]) | TEXT
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3),
    max_leaves=6,
)
CHUNK = st.fixed_dictionaries(
    {"id": TEXT},
    optional={
        "usage": st.none() | st.just(USAGE) | JSON,
        "choices": st.just([]) | st.none() | st.lists(JSON, max_size=2),
        "delta": JSON,
        "obfuscation": TEXT,
    },
).flatmap(lambda chunk: st.permutations(list(chunk.items())).map(dict))
COMPACT, SPACED = (",", ":"), (", ", ": ")


def event(chunk: Any, separators: tuple[str, str] = COMPACT, end: str = "\n\n") -> bytes:
    text = json.dumps(chunk, separators=separators, ensure_ascii=False)
    return f"data: {text}{end}".encode("utf-8", "surrogatepass")


def chunk(content: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"content": content}}], **fields}


def passed(*events: bytes, asked: bool = False) -> tuple[list[Any], Tokens | None]:
    """The chunks that come out, and the usage that was seen."""
    usage = UsageFilter(asked=asked)
    out = b"".join(usage.feed(item) for item in events)
    return payloads(out), usage.tokens


def payloads(out: bytes) -> list[Any]:
    lines = [line for line in out.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line[6:]) for line in lines if line != b"data: [DONE]"]


# What is asked.


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({"model": "m"}, {"include_usage": True}),
        ({"model": "m", "stream_options": None}, {"include_usage": True}),
        ({"model": "m", "stream_options": {}}, {"include_usage": True}),
        ({"model": "m", "stream_options": {"include_usage": False}}, {"include_usage": True}),
        ({"model": "m", "stream_options": {"include_usage": None}}, {"include_usage": True}),
        ({"stream_options": {"a": [1]}, "model": "m"}, {"a": [1], "include_usage": True}),
    ],
)
@pytest.mark.parametrize("lead", ["", " \n\t"])
def test_asks_for_usage(body: dict[str, Any], options: object, lead: str) -> None:
    sent = (lead + json.dumps(body)).encode()
    given = json.dumps(body["stream_options"]).encode() if "stream_options" in body else None
    asking = ask(sent, given)
    assert json.loads(asking) == body | {"stream_options": options}
    assert peek(asking).model == "m"
    assert wants_usage(given) is False


@pytest.mark.parametrize(
    "options", ['{"include_usage":true}', '{ "include_usage" : true, "a": 1 }']
)
def test_leaves_a_body_that_asks(options: str) -> None:
    body = f'{{"model": "m",  "stream_options":{options}}}'.encode()
    assert ask(body, options.encode()) == body
    assert wants_usage(options.encode())


@pytest.mark.parametrize("options", ['"x"', "5", "[]", "true", '{"include_usage":"yes"}'])
def test_leaves_nonsense_to_the_worker(options: str) -> None:
    body = f'{{"model": "m", "stream_options":{options}}}'.encode()
    assert ask(body, options.encode()) == body
    assert not wants_usage(options.encode())


@given(st.dictionaries(TEXT.filter(lambda k: k != "stream_options"), JSON, min_size=1, max_size=4))
def test_the_other_fields_stay(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    asking = json.loads(ask(body, None))
    assert asking.pop("stream_options") == {"include_usage": True}
    assert asking == fields


# What a stream tells.


def test_the_usage_chunk_is_read_and_dropped() -> None:
    events = [event(chunk()), event({"id": "c", "choices": [], "usage": USAGE}), DONE]
    assert passed(*events) == ([chunk()], FOUND)
    assert passed(b"".join(events)) == ([chunk()], FOUND)
    usage = UsageFilter(asked=False)
    assert usage.feed(events[1]) == b""
    assert usage.feed(events[2]) == DONE


@pytest.mark.parametrize("separators", [COMPACT, SPACED])
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("choices", [[], None])
def test_forms_of_the_usage_chunk(
    separators: tuple[str, str], end: str, choices: list[Any] | None
) -> None:
    last = event({"usage": USAGE, "choices": choices}, separators, end)
    first = event(chunk(usage=None), separators, end)
    usage = UsageFilter(asked=False)
    out = usage.feed(first + last)
    assert payloads(out) == [chunk()]
    assert out.endswith(b"}" + end.encode())
    assert usage.tokens == FOUND


def test_nothing_changes_for_a_client_that_asked() -> None:
    events = [
        event(chunk(usage=None), SPACED),
        b": a comment\n\n",
        event({"choices": [], "usage": USAGE}),
        DONE,
    ]
    usage = UsageFilter(asked=True)
    assert b"".join(map(usage.feed, events)) == b"".join(events)
    assert usage.tokens == FOUND
    usage = UsageFilter(asked=True)
    assert usage.feed(b"".join(events)) == b"".join(events)
    assert usage.tokens == FOUND


def test_usage_beside_the_last_piece_of_text() -> None:
    for asked in (True, False):
        out, tokens = passed(event(chunk("end", usage=USAGE)), DONE, asked=asked)
        assert tokens == FOUND
        assert out == [chunk("end", usage=USAGE) if asked else chunk("end")]


def test_the_last_usage_counts_and_nothing_is_not_a_usage() -> None:
    growing = [event(chunk(usage=USAGE | {"completion_tokens": n})) for n in range(3)]
    assert passed(*growing, event(chunk(usage=None)), event(chunk(usage={})))[1] == Tokens(12, 2, 5)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3}, Tokens(3)),
        ({"prompt_tokens": 3.0, "completion_tokens": None}, Tokens(3)),
        ({"prompt_tokens": 3, "prompt_tokens_details": None}, Tokens(3)),
        ({"prompt_tokens": 3, "prompt_cache_hit_tokens": 2}, Tokens(3, None, 2)),
        ({"prompt_tokens": -1, "completion_tokens": 10**30}, None),
        ({"prompt_tokens": 3.5e300, "completion_tokens": 1}, Tokens(None, 1)),
        ({"prompt_tokens": "3"}, None),
        ({"prompt_tokens": True}, None),
        ({}, None),
        ([], None),
        (7, None),
        (None, None),
    ],
)
def test_odd_counts(usage: object, tokens: Tokens | None) -> None:
    assert passed(event({"choices": [1], "usage": usage}))[1] == tokens
    assert usage_of(json.dumps({"usage": usage}).encode()) == tokens


def test_an_error_event_passes() -> None:
    failed = {"error": {"message": '"usage":null', "code": None}, "usage": None}
    out, _ = passed(event(failed))
    assert out == [{"error": failed["error"]}]


@pytest.mark.parametrize(
    "odd",
    [
        b'data: not JSON, "usage":{\n\n',
        b'data: "usage"\n\n',
        b'data: ["usage"]\n\n',
        b': "usage"\n\n',
        b'data: {"usage": {"prompt_tokens": 1',
        b'"usage"',
        b'data: {"usage":\xff}\n\n',
        b'data: {"usage":' + b"[" * 100_000 + b"\n\n",
        b"",
    ],
)
def test_what_cannot_be_read_passes(odd: bytes) -> None:
    for asked in (True, False):
        usage = UsageFilter(asked=asked)
        assert usage.feed(odd) == odd
        assert usage.tokens is None


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_last_event_without_its_end(end: str) -> None:
    last = event({"choices": [], "usage": USAGE}, end=end)
    assert passed(event(chunk()), last) == ([chunk()], FOUND)
    assert passed(event(chunk(usage=None), end=end)) == ([chunk()], None)


def test_the_other_fields_of_an_event_stay() -> None:
    usage = UsageFilter(asked=False)
    text = b'event: x\r\nid: 5\r\ndata: {"a":1,\r\ndata: "usage":null,"b":[ 2 ]}\r\n\r\n'
    assert usage.feed(text) == b'event: x\r\nid: 5\r\ndata: {"a":1,"b":[ 2 ]}\r\n\r\n'


def without_usage(item: dict[str, Any]) -> list[dict[str, Any]]:
    """What is left of a chunk for a client that did not ask, by plain rules."""
    told = "usage" in item and item["usage"] is not None
    if told and "choices" in item and not item["choices"]:
        return []
    return [{key: value for key, value in item.items() if key != "usage"}]


@given(
    st.lists(CHUNK, max_size=5),
    st.sampled_from([COMPACT, SPACED]),
    st.sampled_from(["\n\n", "\r\n\r\n"]),
    st.data(),
)
@example(
    [{"id": ',"usage":null}\n\n'}, {"a": {"usage": None}, "usage": None}], COMPACT, "\n\n", None
)
@example([{"a": {"usage": None}}, {"usage": None, "choices": []}], SPACED, "\n\n", None)
def test_against_json(
    chunks: list[dict[str, Any]], separators: tuple[str, str], end: str, data: Any
) -> None:
    """Whatever the chunks are and wherever the stream is cut between two events: what comes out
    is what plain JSON tools would leave, and equal for every cut."""
    events = [event(item, separators, end) for item in chunks]
    cuts = data.draw(st.sets(st.integers(0, len(events)))) if data is not None else set()
    bounds = [0, *sorted(cuts), len(events)]
    pieces = [b"".join(events[a:b]) for a, b in pairwise(bounds)]
    left = [rest for item in chunks for rest in without_usage(item)]
    assert passed(*pieces)[0] == left
    asked = UsageFilter(asked=True)
    assert b"".join(map(asked.feed, pieces)) == b"".join(events)
    silent = UsageFilter(asked=False)
    for piece in pieces:
        silent.feed(piece)
    assert silent.tokens == asked.tokens


@given(CHUNK, st.sampled_from([COMPACT, SPACED]))
def test_events_without_a_usage_stay_to_the_byte(
    item: dict[str, Any], separators: tuple[str, str]
) -> None:
    item.pop("usage", None)
    text = event(item, separators)
    assert UsageFilter(asked=False).feed(text) == text


# What a plain answer tells.


def test_usage_of_a_plain_answer() -> None:
    answer = {"object": "list", "data": [{"embedding": [0.5] * 9}], "usage": USAGE}
    assert usage_of(json.dumps(answer).encode()) == FOUND
    assert usage_of(b'{"choices": [{"text": "\\"usage\\": {\\"prompt_tokens\\": 9}"}]}') is None


@given(st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode()))
def test_usage_of_anything(body: bytes) -> None:
    found = usage_of(body)
    assert found is None or found != Tokens()
