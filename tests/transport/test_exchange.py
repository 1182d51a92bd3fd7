"""Requests that are answered on the connection itself, beside those that go through ASGI: raw bytes
in, raw bytes out, over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from dev_opsgpt.protocol.errors import ApiError, AuthenticationFailed
from dev_opsgpt.transport import connection as connection_module
from dev_opsgpt.transport import refusing
from dev_opsgpt.transport.asgi import CancelOnDisconnect, read_body, send_body
from dev_opsgpt.transport.exchange import Exchange
from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import App, Receive, Scope, Send, Server, bind

LIMIT = 100_000


class Hot:
    """A handler that does what the header ``do`` says."""

    def __init__(self) -> None:
        self.max_body = LIMIT
        self.asked: list[Exchange] = []
        self.too_large: list[Exchange] = []
        self.abandoned_ones: list[Exchange] = []
        self.cancelled = 0
        self.written = 0
        self.go = asyncio.Event()

    def begin(self, exchange: Exchange) -> None:
        if exchange.headers.get(b"authorization") == b"wrong":
            raise AuthenticationFailed("No.")

    def refused(self, exchange: Exchange, error: ApiError) -> None:
        self.too_large.append(exchange)

    def abandoned(self, exchange: Exchange) -> None:
        self.abandoned_ones.append(exchange)

    async def __call__(self, exchange: Exchange) -> None:
        self.asked.append(exchange)
        try:
            do: Callable[[Exchange], object] = getattr(
                self, exchange.headers.get(b"do", b"echo").decode()
            )
            await do(exchange)  # type: ignore[misc]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def echo(self, exchange: Exchange) -> None:
        exchange.answer(200, b"x-hot: 1\r\n", exchange.body)

    async def late(self, exchange: Exchange) -> None:
        await self.go.wait()
        await self.echo(exchange)

    async def hang(self, exchange: Exchange) -> None:
        await asyncio.sleep(3600)

    async def stream(self, exchange: Exchange) -> None:
        exchange.begin(200, b"content-type: text/event-stream\r\n", b"one ")
        await asyncio.sleep(0.01)
        exchange.write(b"two ")
        await asyncio.sleep(0.01)
        exchange.end(b"three")

    async def flood(self, exchange: Exchange) -> None:
        exchange.begin(200, b"")
        while True:
            exchange.write(b"x" * 65_536)
            self.written += 65_536
            await exchange.drained()

    async def fails(self, exchange: Exchange) -> None:
        exchange.begin(200, b"", b"begun")
        await asyncio.sleep(0.01)
        exchange.fail(AuthenticationFailed("Too late."))


async def cold(scope: Scope, receive: Receive, send: Send) -> None:
    body = await read_body(scope, receive, LIMIT)
    await send_body(send, 200, b"cold " + body, content_type="text/plain")


class Stuck:
    """An application that never answers."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        try:
            await asyncio.sleep(3600)
        finally:
            self.cancelled += 1


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Raw:
    """One connection of a client that sends bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *data: bytes, pause: float = 0.0) -> None:
        for piece in data:
            self.writer.write(piece)
            await self.writer.drain()
            if pause:
                await asyncio.sleep(pause)

    async def answer(self) -> Answer:
        """The next answer, whole."""
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            pairs = [line.split(": ", 1) for line in lines]
            headers = {name.lower(): value for name, value in pairs}
            assert len(headers) == len(pairs), "no header twice"
            status = int(first.split(" ")[1])
            if status == 100:
                return Answer(status, headers, b"")
            return Answer(status, headers, await self._body(headers))

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        found = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            found += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return found

    async def closed(self) -> bool:
        """Whether the server ends the connection, and says nothing more."""
        async with asyncio.timeout(30):
            return await self.reader.read() == b""


class Fixture:
    def __init__(self, server: Server, hot: Hot, stuck: Stuck) -> None:
        self.server, self.hot = server, hot
        self.stuck = stuck
        self._open: list[asyncio.StreamWriter] = []

    async def connect(self) -> Raw:
        found = Raw(*await asyncio.open_connection("127.0.0.1", self.server.port))
        self._open.append(found.writer)
        return found

    def connection(self) -> connection_module.Connection:
        (found,) = self.server._server.server_state.connections
        assert isinstance(found, connection_module.Connection)
        return found

    def close(self) -> None:
        for writer in self._open:
            writer.close()


@pytest.fixture
async def served() -> AsyncIterator[Fixture]:
    async with serving() as found:
        yield found


@asynccontextmanager
async def serving() -> AsyncIterator[Fixture]:
    hot, stuck = Hot(), Stuck()
    routes: dict[str, dict[str, App]] = {"/cold": {"POST": cold}, "/stuck": {"POST": stuck}}
    app = CancelOnDisconnect(Router(routes, elsewhere={"/hot": "POST", "/v1/hot": "POST"}))
    paths = {b"/hot": hot, b"/v1/hot": hot}
    server = Server(app, bind("127.0.0.1", 0), hot=paths, drain_timeout=1)
    await server.start()
    found = Fixture(server, hot, stuck)
    try:
        yield found
    finally:
        found.close()
        await server.stop()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def post(path: str, body: bytes = b"", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: x", *headers]
    if not any("transfer-encoding" in header for header in headers):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


async def test_pipelined_requests_are_answered_in_their_order(served: Fixture) -> None:
    client = await served.connect()
    await client.send(
        post("/hot", b"1", "do: late")
        + post("/cold", b"2")
        + post("/hot", b"3")
        + post("/hot", b"", "do: stream")
        + post("/cold", b"5")
        + post("/hot", b"6", "authorization: wrong")
        + post("/hot", b"7")
    )
    await until(lambda: served.hot.asked)
    await asyncio.sleep(0.05)
    assert len(served.hot.asked) == 1, "the others wait for the first"
    served.hot.go.set()
    answers = [await client.answer() for _ in range(7)]
    assert [answer.status for answer in answers] == [200] * 5 + [401, 200]
    bodies = [answer.body for answer in answers]
    assert bodies[:5] == [b"1", b"cold 2", b"3", b"one two three", b"cold 5"]
    assert bodies[6] == b"7"


@pytest.mark.parametrize("path", ["/hot", "/stuck"])
@pytest.mark.parametrize("behind", ["/hot", "/cold"])
async def test_a_client_that_hangs_up_behind_what_it_has_sent_ahead(
    served: Fixture, path: str, behind: str
) -> None:
    client = await served.connect()
    await client.send(post(path, b"1", "do: hang"), post(behind, b"2") * 3)
    await until(lambda: len(served.hot.asked) + served.stuck.begun == 1)
    client.writer.close()
    await until(lambda: served.hot.cancelled + served.stuck.cancelled == 1)
    assert len(served.hot.asked) + served.stuck.begun == 1
    assert len(served.hot.abandoned_ones) == (3 if behind == "/hot" else 0)


async def test_what_never_began_is_told_once(served: Fixture) -> None:
    """Each request that was let in is run, refused or abandoned."""
    hot, sent = served.hot, 0

    def told() -> list[bytes]:
        ways = (*hot.asked, *hot.too_large, *hot.abandoned_ones)
        return sorted(exchange.headers[b"n"] for exchange in ways)

    def one(*headers: str) -> bytes:
        nonlocal sent
        sent += 1
        return post("/hot", b"x", f"n: {sent:02}", *headers)

    # In the middle of a body, behind others or not; of a head nobody knows whose it is.
    for cut in (
        one()[:-1],
        one("do: hang") + one() + one()[:-1],
        one("do: hang") + one() + post("/hot")[:-1],
        one("do: hang") + one("authorization: wrong"),
        one("do: hang") + one().replace(b"length: 1", b"length: 1000000"),
        one("do: hang") + one() + b"no HTTP\r\n\r\n",
    ):
        client = await served.connect()
        await client.send(cut)
        await asyncio.sleep(0.05)
        client.writer.close()
        await until(lambda: not served.server._server.server_state.connections)
    strangers = [b"08"]
    wanted = [b"%02d" % n for n in range(1, sent + 1)]
    assert told() == [n for n in wanted if n not in strangers]
    assert [one.headers[b"n"] for one in hot.abandoned_ones] == [b"01", b"03", b"04", b"06", b"12"]
    # A body that is no HTTP, first in line and behind another.
    broken = post("/hot", b"zz\r\n", "transfer-encoding: chunked", "n: 90")
    client = await served.connect()
    await client.send(broken)
    assert (await client.answer()).status == 400
    client = await served.connect()
    await client.send(one("do: late") + broken)
    await until(lambda: len(hot.too_large) == 3)
    hot.go.set()
    assert [(await client.answer()).status for _ in range(2)] == [200, 400]
    assert told().count(b"90") == 2


async def test_the_next_in_line_hangs_up_just_when_it_is_its_turn(served: Fixture) -> None:
    """Between the answer before it and its own beginning."""
    client = await served.connect()
    await client.send(post("/hot", b"1", "do: late") + post("/hot", b"2"))
    await until(lambda: served.hot.asked)
    connection = served.connection()
    first = served.hot.asked[0]
    first.answer(200, b"", b"1")
    connection.connection_lost(None)
    assert len(served.hot.abandoned_ones) == 1
    await asyncio.sleep(0.05)
    assert len(served.hot.asked) == 1


async def test_a_client_is_not_read_ahead_without_bound(
    served: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "AHEAD", 100_000)
    client = await served.connect()
    body = b"x" * 50_000
    sending = asyncio.create_task(
        client.send(post("/hot", b"1", "do: late"), *[post("/hot", body)] * 400)
    )
    await until(lambda: served.server._server.server_state.connections)
    connection = served.connection()
    await until(lambda: connection.flow.read_paused)
    waiting = len(connection.pipeline)
    assert not sending.done()
    await asyncio.sleep(0.05)
    assert len(connection.pipeline) == waiting < 30
    served.hot.go.set()
    for wanted in (b"1", *[body] * 400):
        assert (await client.answer()).body == wanted
    await sending


async def test_many_refused_that_waited_for_one(served: Fixture) -> None:
    client = await served.connect()
    wrong = post("/hot", b"", "authorization: wrong")
    await client.send(post("/hot", b"1", "do: late") + wrong * 600)
    await asyncio.sleep(0.05)
    served.hot.go.set()
    answers = [await client.answer() for _ in range(601)]
    assert [answer.status for answer in answers] == [200] + [401] * 600


async def test_many_pipelined_in_pieces_of_any_size(served: Fixture) -> None:
    whole = b"".join(
        post("/hot" if n % 3 else "/cold", b"%d" % n)
        if n % 2
        else post("/hot", chunks(b"%d" % n, b"."), "transfer-encoding: chunked")
        for n in range(30)
    )
    for size in (1, 7, 63, 1000):
        client = await served.connect()
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        sending = asyncio.create_task(client.send(*pieces))
        for n in range(30):
            text = b"%d" % n if n % 2 else b"%d." % n
            wanted = b"cold " + text if n % 2 and not n % 3 else text
            assert (await client.answer()).body == wanted
        await sending


async def test_a_connection_is_kept(served: Fixture) -> None:
    client = await served.connect()
    for number in range(50):
        do = "stream" if number % 3 == 0 else "echo"
        await client.send(post("/hot", b"x", f"do: {do}"))
        answer = await client.answer()
        assert answer.status == 200
        assert "connection" not in answer.headers
        assert "date" in answer.headers
    await client.send(post("/hot", b"x", "connection: close"))
    answer = await client.answer()
    assert answer.headers["connection"] == "close"
    assert await client.closed()
    assert len({id(exchange._connection) for exchange in served.hot.asked}) == 1


async def test_paths(served: Fixture) -> None:
    client = await served.connect()
    for path, wanted in (
        ("/hot", b"x"),
        ("/hot?a=b&c", b"x"),
        ("/hot?", b"x"),
        ("/v1/hot?a=/cold", b"x"),
        ("/cold?a", b"cold x"),
    ):
        await client.send(post(path, b"x"))
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, wanted), path
    assert {exchange.path for exchange in served.hot.asked} == {"/hot", "/v1/hot"}
    for path in ("/hot/", "/HOT", "//hot", "/hotter", "/hot%2F", "/hot;a"):
        await client.send(post(path, b"x"))
        assert (await client.answer()).status == 404, path
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        await client.send(f"{method} /hot HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        answer = await client.answer()
        assert answer.status == 405, method
        assert b"POST" in answer.body


async def test_bodies_in_pieces_and_none(served: Fixture) -> None:
    client = await served.connect()
    body = bytes(range(256)) * 100
    head, _, rest = post("/hot", body).partition(b"\r\n\r\n")
    pieces = [rest[at : at + 997] for at in range(0, len(rest), 997)]
    await client.send(head[:10], head[10:] + b"\r\n", b"\r\n", *pieces, pause=0.001)
    assert (await client.answer()).body == body
    parts = [body[at : at + 333] for at in range(0, len(body), 333)]
    await client.send(post("/hot", chunks(*parts), "transfer-encoding: chunked"))
    assert (await client.answer()).body == body
    for empty in (
        post("/hot"),
        b"POST /hot HTTP/1.1\r\nhost: x\r\n\r\n",
        post("/hot", chunks(), "transfer-encoding: chunked"),
    ):
        await client.send(empty)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"")


async def test_expect_continue(served: Fixture) -> None:
    client = await served.connect()
    head, _, _ = post("/hot", b"x" * 5, "expect: 100-continue").partition(b"\r\n\r\n")
    for _ in range(2):
        await client.send(head + b"\r\n\r\n")
        assert (await client.answer()).status == 100
        await client.send(b"hello")
        assert (await client.answer()).body == b"hello"
    refused = head.replace(b"host: x", b"host: x\r\nauthorization: wrong")
    await client.send(refused + b"\r\n\r\n")
    answer = await client.answer()
    assert answer.status == 401, "without a 100: its body is not wanted"
    assert answer.headers["connection"] == "close"


async def test_http_1_0(served: Fixture) -> None:
    for headers in ((), ("connection: keep-alive",)):
        client = await served.connect()
        await client.send(post("/hot", b"x", *headers, version="1.0"))
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"x", "close")
        assert await client.closed()
        client = await served.connect()
        await client.send(post("/hot", b"x", "do: stream", *headers, version="1.0"))
        answer = await client.answer()
        assert "transfer-encoding" not in answer.headers
        assert answer.body == b"one two three"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large(served: Fixture, chunked: bool) -> None:
    client = await served.connect()
    part = b"x" * 10_000
    if chunked:
        head = post("/hot", b"", "transfer-encoding: chunked")
        pieces = [b"%x\r\n%b\r\n" % (len(part), part)] * 500
    else:
        head = post("/hot", b"").replace(b"length: 0", b"length: 5000000")
        pieces = [part] * 500

    async def send() -> None:
        # It is told to stop, and does not listen.
        with contextlib.suppress(ConnectionError):
            await client.send(head, *pieces, pause=0.0001)

    sending = asyncio.create_task(send())
    answer = await client.answer()
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert b"request_too_large" in answer.body
    assert len(served.hot.too_large) == 1
    assert not served.hot.asked
    await sending
    client = await served.connect()
    await client.send(post("/hot", b"x" * LIMIT))
    assert len((await client.answer()).body) == LIMIT


async def test_a_stranger_s_large_body_is_not_kept(served: Fixture) -> None:
    """The refusal can be read all the same."""
    client = await served.connect()
    head = post("/hot", b"", "authorization: wrong").replace(b"length: 0", b"length: 90000")
    await client.send(head)
    answer = await client.answer()
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    await client.send(*[b"x" * 1000] * 90, pause=0.0001)
    assert await client.closed()
    assert not served.hot.asked
    # All of it at once: then the connection can be used again.
    client = await served.connect()
    await client.send(post("/hot", b"x" * 1000, "authorization: wrong") + post("/hot", b"y"))
    assert (await client.answer()).status == 401
    assert (await client.answer()).body == b"y"


async def test_a_refused_client_that_sends_nothing_more_is_let_go(
    served: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusing, "LINGER", 0.1)
    client = await served.connect()
    await client.send(post("/hot", b"", "authorization: wrong").replace(b"length: 0", b"length: 9"))
    assert (await client.answer()).status == 401
    assert await client.closed()


async def test_who_hangs_up_is_let_go_at_once(served: Fixture) -> None:
    for do in ("hang", "flood"):
        client = await served.connect()
        await client.send(post("/hot", b"x", f"do: {do}"))
        async with asyncio.timeout(30):
            while not served.hot.asked:
                await asyncio.sleep(0.01)
        client.writer.transport.abort()
        async with asyncio.timeout(30):
            while not served.hot.cancelled:
                await asyncio.sleep(0.01)
        served.hot.cancelled = 0
        served.hot.asked.clear()


async def test_a_client_that_reads_nothing_stops_the_flood(served: Fixture) -> None:
    client = await served.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(post("/hot", b"", "do: flood"))
    seen = 0
    async with asyncio.timeout(30):
        while not seen or served.hot.written != seen:
            seen = served.hot.written
            await asyncio.sleep(0.1)
    assert 0 < seen < 16 << 20, "what sockets hold, and a little more"
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await client.reader.readexactly(1 << 20)
    async with asyncio.timeout(30):
        while served.hot.written == seen:
            await client.reader.read(1 << 16)


async def test_a_stream_that_fails_is_cut(served: Fixture) -> None:
    client = await served.connect()
    await client.send(post("/hot", b"", "do: fails"))
    with pytest.raises(asyncio.IncompleteReadError) as cut:
        await client.answer()
    assert cut.value.partial in (b"", b"0"), "no proper end"


async def test_what_is_ambiguous_is_refused(served: Fixture) -> None:
    """Two readers of such bytes could take them for different requests."""
    for wrong in (
        post("/hot", b"x", "content-length: 2"),
        post("/hot", b"x", "transfer-encoding: chunked", "content-length: 1"),
        post("/hot", b"x", "content-length : 1"),
        post("/hot", b"x", "content-length: +1"),
        post("/hot", chunks(b"x"), "transfer-encoding: x"),
        post("/hot", b"zz\r\nx\r\n0\r\n\r\n", "transfer-encoding: chunked"),
        b"POST /hot HTTP/1.1\nhost: x\n\n",
    ):
        client = await served.connect()
        await client.send(wrong)
        assert (await client.answer()).status in (400, 501), wrong
        assert await client.closed()
    assert not served.hot.asked


async def test_a_server_that_stops_answers_who_is_there(served: Fixture) -> None:
    running, waiting, idle = [await served.connect() for _ in range(3)]
    await idle.send(post("/hot", b"0"))
    assert (await idle.answer()).body == b"0"
    await running.send(post("/hot", b"1", "do: late"))
    await waiting.send(post("/hot", b"2", "do: late") + post("/hot", b"3"))
    await until(lambda: len(served.hot.asked) == 3)
    stopping = asyncio.create_task(served.server.stop())
    assert await idle.closed()
    served.hot.go.set()
    answer = await running.answer()
    assert (answer.body, answer.headers.get("connection")) == (b"1", "close")
    assert [(await waiting.answer()).body for _ in range(2)] == [b"2", b"3"]
    await asyncio.wait_for(stopping, 30)


async def test_an_escaped_path_means_the_same(served: Fixture) -> None:
    client = await served.connect()
    for path in ("/%68ot", "/v1%2Fhot", "/%76%31/hot?a"):
        await client.send(post(path, b"x"))
        assert (await client.answer()).body == b"x", path


async def test_expect_continue_behind_another_request(served: Fixture) -> None:
    client = await served.connect()
    head, _, _ = post("/hot", b"x" * 5, "expect: 100-continue").partition(b"\r\n\r\n")
    await client.send(post("/hot", b"1", "do: late") + head + b"\r\n\r\n")
    await asyncio.sleep(0.02)
    served.hot.go.set()
    assert (await client.answer()).body == b"1"
    assert (await client.answer()).status == 100
    await client.send(b"hello")
    assert (await client.answer()).body == b"hello"
