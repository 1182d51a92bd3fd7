"""The server object on real sockets: hang-ups, stalled clients, drains, malformed requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvloop

from dev_opsgpt.protocol.errors import InvalidRequest, RequestTooLarge
from dev_opsgpt.transport import patience as module
from dev_opsgpt.transport.asgi import CancelOnDisconnect, bearer, read_body, send_body
from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import App, PortInUse, Receive, Scope, Send, Server, bind


@asynccontextmanager
async def serving(app: App, drain_timeout: float = 5.0) -> AsyncIterator[tuple[Server, str]]:
    server = Server(app, bind("127.0.0.1", 0), drain_timeout=drain_timeout)
    await server.start()
    try:
        yield server, f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send_body(send, 200, await read_body(scope, receive, 1000), content_type="text/plain")


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    raise InvalidRequest("'x' is wrong.", param="x")


async def crash(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError("sk-secret")


ROUTES = Router({"/echo": {"POST": echo}, "/refuse": {"GET": refuse}, "/crash": {"GET": crash}})


async def test_routes_and_errors() -> None:
    async with serving(ROUTES) as (_, url), httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/echo", content=b"hi")).text == "hi"
        refused = await client.get("/refuse")
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "x"
        assert (await client.get("/nowhere")).json()["error"]["code"] == "not_found"
        wrong = await client.get("/echo")
        assert wrong.status_code == 405
        assert "POST" in wrong.json()["error"]["message"]
        crashed = await client.get("/crash")
        assert crashed.status_code == 500
        assert "sk-secret" not in crashed.text


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_is_refused_and_the_next_request_works(chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100

    content = pieces() if chunked else b"x" * 5000
    async with serving(ROUTES) as (_, url), httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/echo", content=content)
        assert answer.status_code == RequestTooLarge.status
        # Whole at once, though the server goes on listening for a while.
        assert answer.headers["content-length"] == str(len(answer.content))
        assert (await client.post("/echo", content=b"hi")).text == "hi"


async def test_what_is_not_http_gets_an_openai_error() -> None:
    async with serving(ROUTES) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"NONSENSE\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"invalid_http"' in answer


async def test_a_client_that_hangs_up_cancels_its_request() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    app = CancelOnDisconnect(Router({"/": {"GET": slow}}))
    async with serving(app) as (server, _):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await begun.wait()
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 30)


async def test_a_client_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_TIMEOUT", 0.2)
    done = asyncio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                body = {"type": "http.response.body", "body": b"x" * 65_536, "more_body": True}
                await send(body)
        finally:
            done.set()

    app = CancelOnDisconnect(Router({"/": {"GET": flood}}))
    async with serving(app) as (server, _):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(done.wait(), 30)
        writer.close()


async def test_a_client_that_never_ends_its_request_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RECEIVE_TIMEOUT", 0.2)
    async with serving(ROUTES) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nab")
        try:
            rest = await asyncio.wait_for(reader.read(), 30)
        except ConnectionError:
            rest = b""
        assert rest == b""
        writer.close()


async def test_a_stop_lets_answers_in_flight_end() -> None:
    begun = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(0.5)
        await send_body(send, 200, b"whole")

    async with (
        serving(Router({"/": {"GET": slow}})) as (server, url),
        httpx.AsyncClient() as client,
    ):
        answer = asyncio.create_task(client.get(url))
        await begun.wait()
        await server.stop()
        assert (await answer).text == "whole"
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def closed(port: int) -> None:
    """Returns when nobody listens."""
    with contextlib.suppress(ConnectionError):
        while True:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()


def test_a_stop_answers_what_is_on_its_way_over_open_connections() -> None:
    # On the loop that all parts run on. asyncio's own fails over a connection that it is accepting
    # when it closes a port (CPython issue 109564).
    uvloop.run(stopped_with_open_connections())


async def stopped_with_open_connections() -> None:
    request = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"
    async with serving(ROUTES) as (server, _):
        new = await asyncio.open_connection("127.0.0.1", server.port)
        kept = await asyncio.open_connection("127.0.0.1", server.port)
        silent = await asyncio.open_connection("127.0.0.1", server.port)
        kept[1].write(request)
        assert b"connection: close" not in await kept[0].readuntil(b"hi")
        stopping = asyncio.create_task(server.stop())
        await closed(server.port)
        for reader, writer in (new, kept):
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 30)
            assert b"connection: close" in answer
            assert answer.endswith(b"hi")
        assert await asyncio.wait_for(silent[0].read(), 30) == b""
        await stopping
        for _, writer in (new, kept, silent):
            writer.close()


def test_a_port_in_use_is_one_line() -> None:
    with bind("127.0.0.1", 0) as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"^cannot listen on 127.0.0.1:{port}: .*in use$"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", "abc"),
        (b"bearer  abc ", "abc"),
        (b"Basic dTphYmM=", "abc"),
        (b"Basic !", None),
        (b"Bearer ", None),
        (b"Digest abc", None),
    ],
)
def test_bearer(value: bytes, token: str | None) -> None:
    assert bearer({"headers": [(b"x", b"y"), (b"authorization", value)]}) == token
    assert bearer({"headers": []}) is None


async def test_a_head_goes_out_without_waiting_for_its_body() -> None:
    more = asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})
        await more.wait()
        await send({"type": "http.response.body", "body": b"late", "more_body": True})
        await send({"type": "http.response.body", "body": b"r"})

    async with serving(Router({"/": {"GET": late}})) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert b"x-a: 1" in head
        more.set()
        body = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 30)
        assert body == b"4\r\nlate\r\n1\r\nr\r\n0\r\n\r\n"
        # The connection serves the next request, and requests sent ahead of their answers.
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 3)
        for _ in range(3):
            await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 30)
        writer.close()


async def test_an_answer_without_a_body_is_whole() -> None:
    async def empty(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = Router({"/": {"GET": empty, "HEAD": empty}})
    async with serving(app) as (_, url), httpx.AsyncClient(base_url=url) as client:
        for _attempt in range(3):
            assert (await client.get("/")).status_code == 204
            assert (await client.head("/")).status_code == 204
