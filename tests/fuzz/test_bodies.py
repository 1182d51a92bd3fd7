"""Bodies and bytes that nobody thought of: every answer is a refusal or an answer, none a failure,
and whoever comes next finds a server that works."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.target import ADMIN, FRONTS, KEY, PATIENCE, Front, Target, chat, exchange
from tests.support.stack import SECRET

POSTS = {
    **FRONTS,
    "completions": Front("gateway", b"/v1/completions", KEY, b'{"model":"echo","prompt":"a"}'),
    "embeddings": Front("gateway", b"/v1/embeddings", KEY, b'{"model":"echo","input":"a"}'),
    "rerank": Front(
        "gateway", b"/v1/rerank", KEY, b'{"model":"echo","query":"a","documents":["a"]}'
    ),
    "rotate": Front("gateway", b"/admin/keys/key_0123456789abcdef/rotate", ADMIN),
    "worker completions": Front("worker", b"/v1/completions", SECRET, b'{"model":"echo"}'),
    "worker embeddings": Front("worker", b"/v1/embeddings", SECRET, b'{"model":"a","input":""}'),
    "worker generate": Front("worker", b"/worker_generate", SECRET),
    "worker tokens": Front("worker", b"/count_token", SECRET, b'{"prompt":"a"}'),
    "beat": Front(
        "controller", b"/receive_heart_beat", SECRET, b'{"worker_name":"a","queue_length":0}'
    ),
    "drain": Front("controller", b"/drain_worker", SECRET, b'{"worker_name":"a"}'),
}

modest = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def answered(
    target: Target, front: Front, data: bytes, *, by: str = "", patience: float = PATIENCE
) -> list[int]:
    """The statuses that the bytes get; none of them is a failure of the server."""
    found = exchange(front.port(target), data, answers=1, patience=patience)
    for status in found.statuses:
        assert status < 500, (by, data, found.all)
    return found.statuses


def works(target: Target) -> None:
    for name in ("hot", "page", "admin", "worker", "controller"):
        front = FRONTS[name]
        assert answered(target, front, front.post()) == [200]


ODD: dict[str, bytes] = {
    "nothing": b"",
    "space": b"  ",
    "null": b"null",
    "list": b"[]",
    "text": b'"echo"',
    "number": b"1",
    "two values": b"{}{}",
    "no end": b'{"model":"echo"',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"model":"echo"}'.encode("utf-16"),
    "no UTF-8": b'{"model":"\xff\xfe"}',
    "no UTF-8 in a message": chat("x").replace(b"x", b"\xc3\x28"),
    "no UTF-8 in a name": chat("x", stream=True, stream_options={}).replace(b"{", b'{"\xff":1,', 1),
    "no UTF-8 in an option": chat("x", stream=True, stream_options={"x": 1}).replace(
        b'"x": 1', b'"\xff": 1'
    ),
    "overlong UTF-8": chat("x").replace(b"x", b"\xc0\xaf"),
    "a lone surrogate": chat("x").replace(b"x", b"\\ud800"),
    "a lone surrogate as a model": b'{"model":"\\ud800","messages":[]}',
    "a lone surrogate as a name": chat("x").replace(b'"model"', b'"\\udfff":1,"model"'),
    "NUL": chat("x").replace(b"x", b"\\u0000"),
    "a raw NUL": chat("x").replace(b"x", b"\0"),
    "raw line ends": chat("x").replace(b"x", b"\r\n"),
    "NaN": chat("x").replace(b"{", b'{"temperature":NaN,', 1),
    "Infinity": chat("x").replace(b"{", b'{"temperature":-Infinity,', 1),
    "a number without end": chat("x").replace(b"{", b'{"seed":%b,' % (b"9" * 100_000), 1),
    "a large exponent": chat("x").replace(b"{", b'{"max_tokens":1e999999,', 1),
    "a small exponent": chat("x").replace(b"{", b'{"temperature":1e-999999,', 1),
    "a nought too many": chat("x").replace(b"{", b'{"seed":00,', 1),
    "2^64": chat("x").replace(b"{", b'{"seed":18446744073709551616,', 1),
    "a field twice": chat("x").replace(b"{", b'{"model":"other",', 1),
    "messages twice": chat("x").replace(b"{", b'{"messages":1,', 1),
    "comments": chat("x").replace(b"{", b"{/* a */", 1),
    "a comma too many": chat("x").replace(b"}]", b"},]"),
    "deep lists": b"[" * 100_000,
    "deep lists with an end": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep in a field": b'{"model":"echo","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep in a field that nobody reads": chat("x").replace(
        b"{", b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b",", 1
    ),
    "deep options of a stream": chat("x", stream=True).replace(
        b"{", b'{"stream_options":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b",", 1
    ),
    "deep, not too deep": chat("x").replace(b"{", b'{"x":' + b"[" * 900 + b"]" * 900 + b",", 1),
    "many fields": b'{"model":"echo",' + b'"a":1,' * 100_000 + b'"b":1}',
    "many messages": chat("x").replace(b"[{", b"[" + b"{}," * 50_000 + b"{"),
    "a long name": b'{"model":"' + b"a" * 1_000_000 + b'","messages":[]}',
    "options of a stream that are none": chat("x", stream=True, stream_options=3),
    "a stream in words": chat("x", stream="yes"),
    "no tier": chat("x", service_tier={"a": []}),
    "a user that is none": chat("x", user=[1]),
    "prompts of prompts": b'{"model":"echo","prompt":[[[1]]],"input":[[[1]]]}',
    "tokens past all sense": b'{"model":"echo","prompt":[99999999999999999999],"input":[-1]}',
    "prompts without end": b'{"model":"echo","prompt":[""' + b',""' * 20_000 + b'],"n":128}',
}


@pytest.mark.parametrize("front", POSTS)
def test_odd_bodies(keyed: Target, front: str) -> None:
    asked = POSTS[front]
    for name, body in ODD.items():
        (status,) = answered(keyed, asked, asked.post(body=body), by=name)
        assert status in (200, 400, 404, 413), name
    works(keyed)


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data", "a/b;c", "\xff"])
def test_odd_types_of_bodies(keyed: Target, kind: str) -> None:
    for front in POSTS.values():
        own = b"Content-Type: " + kind.encode("latin-1")
        data = front.post().replace(b"Content-Type: application/json", own)
        assert len(answered(keyed, front, data)) == 1


names = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "input",
        "stream",
        "stream_options",
        "n",
        "tools",
        "stop",
        "seed",
        "prompts",
        "max_tokens",
        "user",
        "models",
        "expires_at",
        "name",
        "grace",
        "worker_name",
        "queue_length",
        "role",
        "content",
        "type",
        "text",
        "include_usage",
        "logprobs",
    ]
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(["echo", "user", "text", "2" * 400, "\ud800", "\0"]),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(names | st.text(max_size=5), inner, max_size=4),
    ),
    max_leaves=20,
)
objects = st.dictionaries(names, values, max_size=8)


def encoded(value: Any) -> bytes:
    """As JSON, and as what is nearly JSON: with NaN, and with surrogates that are alone."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("front", POSTS)
@modest
@given(value=objects, known=st.booleans())
def test_random_json(keyed: Target, front: str, value: dict[str, Any], known: bool) -> None:
    asked = POSTS[front]
    if known:
        value = json.loads(asked.body) | value
    assert len(answered(keyed, asked, asked.post(body=encoded(value)))) == 1


@pytest.mark.parametrize("front", FRONTS)
@modest
@given(data=st.binary(min_size=1, max_size=300))
def test_random_bytes(keyed: Target, front: str, data: bytes) -> None:
    # An empty line, so that the server waits for no more.
    assert answered(keyed, FRONTS[front], b"x" + data + b"\r\n\r\n\r\n") == [400]


changes = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "double", "flip", "swap"]),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b";", b"0", b"\xff", b"\t"]),
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=4,
)


def changed(data: bytes, steps: list[tuple[str, float, bytes, int]]) -> bytes:
    """The bytes after some accidents."""
    for kind, where, piece, size in steps:
        at = int(len(data) * where)
        before, this, after = data[:at], data[at : at + size], data[at + size :]
        data = {
            "insert": before + piece + data[at:],
            "delete": before + after,
            "double": before + this + this + after,
            "flip": before + bytes(byte ^ (1 << size % 8) for byte in this) + after,
            "swap": after + this + before,
        }[kind]
    return data


@pytest.mark.parametrize("front", FRONTS)
@modest
@given(steps=changes, chunked=st.booleans())
def test_mutated_requests(
    keyed: Target, front: str, steps: list[tuple[str, float, bytes, int]], chunked: bool
) -> None:
    asked = FRONTS[front]
    data = changed(asked.chunked() if chunked else asked.post(), steps)
    # What waits for more is answered when the next request comes, or is cut off.
    answered(keyed, asked, data + b"\r\n\r\n" + asked.post() * 2, patience=0.2)


def test_all_of_them_still_work(keyed: Target) -> None:
    works(keyed)
