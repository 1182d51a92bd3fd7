"""One request hidden in another: it is answered as the second one, where it is plainly that, or not
at all. And what goes on to a worker holds one request, whatever a client puts into its own."""

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count

import httptools
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.gateway.upstreams import CLIENT_KEY
from tests.fuzz.target import FRONTS, KEY, Front, Target, chat, chunks, exchange
from tests.fuzz.test_raw_http import wrong_framing
from tests.support.stack import SECRET

# The fronts whose requests the engine sees.
SEEN = ("hot", "voice", "worker")
_numbers = count()


def hidden() -> tuple[str, bytes]:
    """A text that nobody else asks, and a body that asks it."""
    text = f"hidden {next(_numbers)}"
    return text, chat(text, stream=False)


def was_asked(target: Target, text: str) -> bool:
    """Whether the engine was; what is on its way gets the time to arrive."""
    until = time.monotonic() + 0.02
    while text not in target.asked and time.monotonic() < until:
        time.sleep(0.005)
    return text in target.asked


def halves(data: bytes) -> list[list[bytes]]:
    """In one packet, and in two: the head, and what follows it."""
    end = data.index(b"\r\n\r\n") + 4
    return [[data], [data[:end], data[end:]]]


@pytest.mark.parametrize("front", SEEN)
@pytest.mark.parametrize("name", wrong_framing(FRONTS["hot"]))
def test_nothing_follows_a_request_without_a_clear_end(
    keyed: Target, front: str, name: str
) -> None:
    asked = FRONTS[front]
    text, body = hidden()
    data = wrong_framing(asked)[name] + asked.post(body=body)
    for pieces in halves(data):
        found = exchange(asked.port(keyed), *pieces)
        assert found.statuses in ([400], [])
        assert found.closed
    assert not was_asked(keyed, text)


def in_bodies(front: Front, inner: bytes) -> dict[str, bytes]:
    """Requests whose whole body is another request."""
    upgrade = (b"Connection: Upgrade", b"Upgrade: h2c")
    return {
        "by its length": front.post(body=inner),
        "in a chunk": front.chunked(body=chunks(inner)),
        "by its length, with an upgrade": front.post(*upgrade, body=inner),
        "in a chunk, with an upgrade": front.chunked(*upgrade, body=chunks(inner)),
        "with a websocket's upgrade": front.post(
            b"Connection: upgrade", b"Upgrade: websocket", body=inner
        ),
        "before it is wanted": front.post(b"Expect: 100-continue", body=inner),
        "without a key": front.post(body=inner, auth=False),
        "in chunks, without a key": front.chunked(body=chunks(inner), auth=False),
        "where no body belongs": front.post(body=inner).replace(b"POST", b"GET", 1),
        "to no route": front.post(body=inner).replace(b"POST /", b"POST /nowhere/", 1),
        "by HTTP/1.0": front.post(body=inner, version=b"HTTP/1.0"),
    }


@pytest.mark.parametrize("front", SEEN)
@pytest.mark.parametrize("name", in_bodies(FRONTS["hot"], b""))
def test_a_body_is_no_request(keyed: Target, front: str, name: str) -> None:
    asked = FRONTS[front]
    text, body = hidden()
    for pieces in halves(in_bodies(asked, asked.post(body=body))[name]):
        found = exchange(asked.port(keyed), *pieces, answers=1, more=True)
        assert len(found.statuses) == 1, found.all
        assert 400 <= found.statuses[0] < 500
    assert not was_asked(keyed, text)


@pytest.mark.parametrize("front", SEEN)
@pytest.mark.parametrize(
    "first",
    [
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)
def test_nothing_follows_the_last_request(keyed: Target, front: str, first: bytes) -> None:
    asked = FRONTS[front]
    text, body = hidden()
    for pieces in ([first + asked.post(body=body)], [first, asked.post(body=body)]):
        found = exchange(asked.port(keyed), *pieces)
        assert len(found.statuses) == 1, found.all
        assert found.closed
    assert not was_asked(keyed, text)


@pytest.mark.parametrize("front", SEEN)
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_nothing_follows_a_refusal_that_closes(keyed: Target, front: str, version: bytes) -> None:
    asked = FRONTS[front]
    page = b"POST /admin/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
    stranger = asked.post(b"Connection: keep-alive", version=version, auth=False)
    for between in (b"", page):
        for number in (0, 1):
            text, body = hidden()
            pieces = halves(stranger + between + asked.post(body=body))[number]
            found = exchange(asked.port(keyed), *pieces, answers=2)
            assert found.statuses[0] == 401
            # A refusal of what had come whole ends no connection of HTTP/1.1.
            if found.closed or version == b"HTTP/1.0":
                assert found.statuses == [401]
                assert not was_asked(keyed, text)


@pytest.mark.parametrize("front", SEEN)
@pytest.mark.parametrize("chunked", [False, True])
def test_requests_with_clear_ends_are_answered_in_turn(
    keyed: Target, front: str, chunked: bool
) -> None:
    asked = FRONTS[front]
    texts, bodies = zip(*(hidden() for _ in range(3)), strict=True)
    make = (lambda body: asked.chunked(body=chunks(body))) if chunked else None
    data = b"".join(make(body) if make else asked.post(body=body) for body in bodies)
    for pieces in ([data], [data[i : i + 50] for i in range(0, len(data), 50)]):
        found = exchange(asked.port(keyed), *pieces, answers=3)
        assert found.statuses == [200] * 3
        said = [json.loads(one.body)["choices"][0]["message"]["content"] for one in found.all]
        assert said == [text + " " for text in texts]
        # Each has its own id.
        assert asked.part == "worker" or len({a.headers[b"x-request-id"] for a in found.all}) == 3


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("junk", [b"\0\0\0", b"XXXX", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\xff"])
def test_junk_after_a_request_is_refused_in_its_own_place(
    keyed: Target, front: str, junk: bytes
) -> None:
    asked = FRONTS[front]
    for pieces in ([asked.post() + junk], [asked.post(), junk]):
        found = exchange(asked.port(keyed), *pieces)
        assert found.statuses == [200, 400]
        assert found.closed
    two = exchange(asked.port(keyed), asked.post() * 2 + junk)
    assert two.statuses == [200, 200, 400]


def test_junk_cuts_no_stream_that_is_under_way(keyed: Target) -> None:
    front = FRONTS["hot"]
    body = chat("word " * 200, stream=True)
    found = exchange(keyed.gateway, front.post(body=body) + b"junk\r\n\r\n")
    assert found.statuses == [200, 400]
    stream = found.all[0]
    assert stream.whole
    assert stream.body.count(b"word") == 200
    assert stream.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("front", SEEN)
def test_a_trailer_lets_nobody_in(keyed: Target, front: str) -> None:
    asked = FRONTS[front]
    text, body = hidden()
    wire = chunks(asked.body)[:-2] + b"Authorization: Bearer %b\r\n\r\n" % asked.token.encode()
    stranger = asked.post(body=body, auth=False)
    for pieces in ([asked.chunked(body=wire) + stranger], [asked.chunked(body=wire), stranger]):
        found = exchange(asked.port(keyed), *pieces, answers=2)
        assert found.statuses == [200, 401]
    own = exchange(asked.port(keyed), asked.chunked(body=wire, auth=False), answers=1)
    assert own.statuses == [401]
    assert not was_asked(keyed, text)


@pytest.mark.parametrize("front", SEEN)
def test_no_header_of_one_request_is_the_next_ones(keyed: Target, front: str) -> None:
    asked = FRONTS[front]
    mine = asked.post(b"X-Request-Id: mine")
    found = exchange(asked.port(keyed), mine + asked.post() + asked.post(auth=False), answers=3)
    assert found.statuses == [200, 200, 401]
    if asked.part == "gateway":
        ids = [answer.headers[b"x-request-id"] for answer in found.all]
        assert ids[0] == b"mine"
        assert all(one.startswith(b"req-") for one in ids[1:])


class Peer:
    """Plays a worker that keeps the bytes it is sent. ``requests`` are (headers, body)."""

    ANSWER = b'{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":1}}'

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.requests: list[tuple[list[tuple[bytes, bytes]], bytes]] = []
        self.faults: list[str] = []

    async def serve(self, ending: list[Callable[[], object]]) -> None:
        over = asyncio.Event()
        ending.append(partial(asyncio.get_running_loop().call_soon_threadsafe, over.set))
        async with await asyncio.start_server(self._answer, sock=self._listening):
            await over.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 20):
                self._note(data)
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
                writer.write(head % len(self.ANSWER) + self.ANSWER)
        finally:
            writer.close()

    def _note(self, data: bytes) -> None:
        one = _OneRequest()
        try:
            one.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.faults.append(f"{error}: {data!r}")
        if one.ends != 1:
            self.faults.append(f"{one.ends} requests: {data!r}")
        self.requests.append((one.headers, one.body))


class _OneRequest:
    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.ends = 0
        self.parser = httptools.HttpRequestParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ends += 1


@contextmanager
def peer() -> Iterator[Peer]:
    """Runs one in a thread."""
    found = Peer(socket.create_server(("127.0.0.1", 0)))
    ending: list[Callable[[], object]] = []
    thread = threading.Thread(target=lambda: asyncio.run(found.serve(ending)))
    thread.start()
    try:
        yield found
    finally:
        ending[0]()
        thread.join()


@pytest.fixture(scope="module")
def worker(unkeyed: Target) -> Iterator[Peer]:
    """A worker of the model "peer", as the controller thinks."""
    with peer() as found:
        body = {
            "worker_name": found.address,
            "check_heart_beat": True,
            "worker_status": {"model_names": ["peer"], "speed": 1, "queue_length": 0},
            "opsgpt": {
                "kind": "opsgpt",
                "limit": 9,
                "beat_interval": 60.0,
                "launcher": None,
                "version": "0",
            },
        }
        headers = {"authorization": f"Bearer {SECRET}"}
        url = f"http://127.0.0.1:{unkeyed.controller}/register_worker"
        httpx.post(url, json=body, headers=headers).raise_for_status()
        with httpx.Client(base_url=unkeyed.url) as client:
            until = time.monotonic() + 30
            while not client.get("/health").json()["models"].get("peer"):
                assert time.monotonic() < until
                time.sleep(0.02)
        yield found


# What a header can hold at all.
value = st.binary(max_size=60).map(lambda data: bytes(b for b in data if b >= 32 and b != 127))
breaking = st.text(max_size=30).map(lambda text: f"{text}\r\nx-evil: 1\r\n\r\nPOST / HTTP/1.1")
secret = st.one_of(st.binary(max_size=60), breaking.map(str.encode))
authorization = st.one_of(
    value,
    value.map(lambda data: b"Bearer " + data),
    secret.map(lambda data: b"Basic " + base64.b64encode(b"user:" + data)),
)
trace = st.one_of(value, st.just(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"))
GOES_ON = {
    b"host",
    b"content-type",
    b"authorization",
    b"content-length",
    b"x-request-id",
    b"traceparent",
    b"tracestate",
    CLIENT_KEY.strip(b": "),
}


@settings(max_examples=150, derandomize=True, database=None)
@given(
    headers=st.fixed_dictionaries(
        {},
        optional={
            b"Authorization": authorization,
            b"X-Request-Id": value,
            b"Traceparent": trace,
            b"Tracestate": value,
            b"X-Opsgpt-Client-Key": value,
            b"X-Session-Id": value,
            b"User-Agent": value,
        },
    ),
    text=st.one_of(st.text(max_size=30), breaking),
)
def test_nothing_breaks_out_of_its_line_towards_a_worker(
    unkeyed: Target, worker: Peer, headers: dict[bytes, bytes], text: str
) -> None:
    body = json.dumps({"model": "peer", "messages": [text], "user": text, text: text}).encode()
    before = len(worker.requests)
    lines = [b"%b: %b" % pair for pair in headers.items()]
    front = FRONTS["hot"]
    found = exchange(unkeyed.gateway, front.post(*lines, body=body, auth=False), answers=1)
    assert found.statuses == [200], found.all
    assert not worker.faults
    ((sent, received),) = worker.requests[before:]
    names = [name for name, _ in sent]
    assert set(names) <= GOES_ON
    assert len(set(names)) == len(names)
    assert received == body
    credential = dict(sent)[b"authorization"]
    assert credential == f"Bearer {SECRET}".encode()


@pytest.mark.parametrize("name", ["peer\r\nx-evil: 1", "peer\0", "../peer", "peer\n\n", "\ud800"])
def test_a_models_name_is_nothing_but_a_name(unkeyed: Target, worker: Peer, name: str) -> None:
    before = len(worker.requests)
    body = json.dumps({"model": name, "messages": []}).encode()
    found = exchange(unkeyed.gateway, FRONTS["hot"].post(body=body, auth=False), answers=1)
    assert found.statuses in ([404], [400])
    assert len(worker.requests) == before


def test_a_key_with_a_line_end_is_none(keyed: Target) -> None:
    pair = base64.b64encode(f"user:{KEY}\r\nx: y".encode())
    lines = (b"Authorization: Basic " + pair,)
    found = exchange(keyed.gateway, FRONTS["hot"].post(*lines, auth=False), answers=1)
    assert found.statuses == [401]
