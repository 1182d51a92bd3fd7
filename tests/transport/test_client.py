"""Our HTTP client against real sockets: servers that answer, stall, break off and lie."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.errors import (
    BadResponse,
    ConnectFailed,
    ConnectionBroken,
    ReadTimeout,
)

Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server that does what a test says with each request it reads."""

    def __init__(self, reply: Streams) -> None:
        self._reply = reply
        self.connections = 0
        self.requests: list[bytes] = []
        self.closed = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self._reply(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed.set()
            writer.close()


@asynccontextmanager
async def peer(reply: Streams) -> AsyncIterator[tuple[Peer, Origin]]:
    found = Peer(reply)
    server = await asyncio.start_server(found, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield found, Origin(f"http://127.0.0.1:{port}/v1/")


def plain(body: bytes, extra: bytes = b"") -> Streams:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n" % (len(body), extra) + body)

    return reply


def raw(data: bytes, *, close: bool = False) -> Streams:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        if close:
            writer.close()

    return reply


async def get(client: Client, origin: Origin, body: bytes = b"") -> bytes:
    response = await client.send(origin, origin.head("POST", "/x", {"a": "b"}), body)
    return await response.read()


async def test_sends_a_request_and_keeps_the_connection() -> None:
    async with peer(plain(b"hello")) as (server, origin), Client() as client:
        assert [await get(client, origin, b"body") for _ in range(3)] == [b"hello"] * 3
        assert server.connections == 1
    head, body = server.requests[0].split(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /v1/x HTTP/1.1"
    assert b"a: b" in head
    assert body == b"body"


async def test_chunked_bodies_come_piece_by_piece() -> None:
    gate = asyncio.Event()

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        await gate.wait()
        writer.write(b"2\r\nde\r\n0\r\n\r\n")

    async with peer(reply) as (server, origin), Client() as client:
        response = await client.send(origin, origin.head("POST", "/", {}))
        assert await response.next() == b"abc"
        gate.set()
        assert await response.next() == b"de"
        assert await response.next() == b""
        assert await get(client, origin) == b"abcde"
        assert server.connections == 1


async def test_a_body_without_length_ends_with_the_connection() -> None:
    async with (
        peer(raw(b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True)) as (server, origin),
        Client() as client,
    ):
        assert await get(client, origin) == b"all of it"
        assert await get(client, origin) == b"all of it"
        assert server.connections == 2


async def test_interim_answers_are_passed_over() -> None:
    data = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    async with peer(raw(data)) as (_, origin), Client() as client:
        response = await client.send(origin, origin.head("POST", "/", {}))
        assert response.status == 200
        assert response.header(b"link") is None
        assert await response.read() == b"ok"


async def test_nobody_listens() -> None:
    async with Client() as client:
        with pytest.raises(ConnectFailed, match="Connect"):
            await client.request("GET", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ConnectionBroken),
        (b"HTTP/1.1 200 OK\r\nContent-", ConnectionBroken),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", ConnectionBroken),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", ConnectionBroken),
        (b"SSH-2.0-OpenSSH_9.2\r\n", BadResponse),
        (b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nab", BadResponse),
        (b"HTTP/1.1 600 X\r\nContent-Length: 2\r\n\r\nok", BadResponse),
        (b"HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nok", BadResponse),
        (b"HTTP/1.1 200 OK\r\n" + b"name: value\r\n" * 20_000 + b"\r\n", BadResponse),
    ],
)
async def test_broken_answers_are_errors(data: bytes, error: type[Exception]) -> None:
    async with peer(raw(data, close=True)) as (_, origin), Client() as client:
        with pytest.raises(error):
            await get(client, origin)


@pytest.mark.parametrize(
    "more",
    [
        b"more than it said",
        b"HTTP/1.1 418 X\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 100 X\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nab",
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_what_follows_an_answer_is_none_of_it(more: bytes, chunked: bool) -> None:
    """It comes in the same packet; the connection is of no use any more."""
    framing = b"Content-Length: 2\r\n\r\nok"
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\n" + framing + more
    async with peer(raw(answer)) as (server, origin), Client() as client:
        for number in (1, 2):
            async with asyncio.timeout(5):
                response = await client.send(origin, origin.head("POST", "/", {}))
                pieces: list[bytes] = []
                await response.pipe(pieces.append)
            assert (response.status, b"".join(pieces)) == (200, b"ok")
            assert server.connections == number


async def test_what_arrived_before_the_break_is_given_first() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    async with peer(raw(data, close=True)) as (_, origin), Client() as client:
        response = await client.send(origin, origin.head("POST", "/", {}))
        assert await response.next() == b"half"
        with pytest.raises(ConnectionBroken):
            await response.next()


async def test_a_kept_connection_that_the_server_closed_is_replaced_unseen() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        # The next request is read, and answered with nothing but a close.
        await reader.read(1)
        writer.close()

    async with peer(once) as (server, origin), Client() as client:
        assert [await get(client, origin) for _ in range(4)] == [b"ok"] * 4
        assert server.connections == 4


async def test_silence_is_timed_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with peer(silent) as (server, origin), Client(read_timeout=0.2) as client:
        with pytest.raises(ReadTimeout):
            await get(client, origin)
        await server.closed.wait()


async def test_closing_an_unfinished_answer_hangs_up() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")

    async with peer(endless) as (server, origin), Client() as client:
        response = await client.send(origin, origin.head("POST", "/", {}))
        assert await response.next() == b"a"
        response.close()
        await asyncio.wait_for(server.closed.wait(), 30)


async def test_a_cancelled_wait_hangs_up() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    async with peer(never) as (server, origin), Client() as client:
        task = asyncio.create_task(get(client, origin))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(server.closed.wait(), 30)


async def test_a_fast_server_waits_for_a_slow_reader() -> None:
    sent = 0
    size = 64 << 20

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with peer(flood) as (_, origin), Client() as client:
        response = await client.send(origin, origin.head("POST", "/", {}))
        await asyncio.sleep(0.5)
        assert sent < size / 2, "nothing held the server back"
        assert len(await response.read()) == size


async def test_a_limit_on_what_is_read() -> None:
    async with peer(plain(b"x" * 1000)) as (_, origin), Client() as client:
        response = await client.send(origin, origin.head("POST", "/", {}))
        with pytest.raises(BadResponse):
            await response.read(999)


async def test_abort_fails_what_is_in_flight_and_nothing_else() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    async with (
        peer(never) as (dead, dead_origin),
        peer(plain(b"ok")) as (_, origin),
        Client() as client,
    ):
        task = asyncio.create_task(get(client, dead_origin))
        while not dead.requests:
            await asyncio.sleep(0.01)
        client.abort(dead_origin, ConnectionBroken("gone"))
        with pytest.raises(ConnectionBroken, match="gone"):
            await task
        assert await get(client, origin) == b"ok"


async def test_many_at_once_each_get_their_own_answer() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    class Echo(Peer):
        async def __call__(
            self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            async def reply(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
                body = own.requests[-1].split(b"\r\n\r\n", 1)[1]
                await asyncio.sleep(len(body) % 7 / 1000)
                w.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

            own = Peer(reply)
            await own(reader, writer)

    server = await asyncio.start_server(Echo(echo), "127.0.0.1", 0)
    async with server, Client() as client:
        origin = Origin(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        bodies = [b"%d" % i * (i + 1) for i in range(200)]
        answers = await asyncio.gather(*(get(client, origin, body) for body in bodies))
    assert answers == bodies


@pytest.mark.parametrize("url", ["ftp://a", "a:80", "http://", ""])
def test_origins_are_http_urls(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        Origin(url)


def test_a_header_cannot_smuggle_a_line() -> None:
    with pytest.raises(ValueError, match="line end"):
        Origin("http://a").head("GET", "/", {"x": "1\r\nhost: b"})


def test_origin_parts() -> None:
    origin = Origin("https://[::1]:8443/base/")
    assert (origin.host, origin.port, origin.tls, origin.base) == ("::1", 8443, True, "/base")
    assert origin.authority == b"[::1]:8443"
    assert Origin("http://a.example").port == 80


async def test_a_dead_origin_is_not_asked_anew_over_another_connection() -> None:
    """A process that stands still accepts connections all the same, and says nothing on them."""

    async def answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            await plain(b"hello")(reader, writer)
        else:
            await reader.read()

    async with peer(answers_once) as (server, origin), Client() as client:
        assert await get(client, origin) == b"hello"
        asked = asyncio.create_task(get(client, origin))
        while len(server.requests) < 2:
            await asyncio.sleep(0.01)
        client.abort(origin, ConnectionBroken("The worker is gone."))
        with pytest.raises(ConnectionBroken):
            await asyncio.wait_for(asked, 30)
        assert server.connections == 1
