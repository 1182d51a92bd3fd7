"""Reading wrk's figures, and our own callers against real servers, good and bad."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import mock
from benchmarks.callers import Caller, Plan, call, connect, never, request_bytes, summary
from benchmarks.check import content, expected
from benchmarks.load import Load, LoadFailed, parse_wrk, percentile, request_body
from benchmarks.mock import Canned, Shape, Stream, stream
from benchmarks.processes import free_port
from benchmarks.upstream import CHAT
from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.protocol.parse import parse
from dev_opsgpt.protocol.sse import Decoder
from dev_opsgpt.transport.client import Client

TOKEN = b"word000"


@asynccontextmanager
async def serving(answer: bytes | Stream) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Canned({CHAT: answer}, b""), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1/chat/completions"
    finally:
        server.close()


def plan(url: str, **more: object) -> Plan:
    values = {"headers": {}, "body": request_body(stream=True), "token": TOKEN}
    return Plan(url=url, **{**values, "concurrent": 3, "seconds": 0.0, **more})  # type: ignore[arg-type]


async def callers_of(answer: bytes | Stream, **more: object) -> list[Caller]:
    async with serving(answer) as url, asyncio.timeout(30):
        callers = await connect(plan(url, **more), never)
        await asyncio.wait([caller.done for caller in callers])
    return callers


def test_wrk_s_figures() -> None:
    line = '{"requests":5,"seconds":2.0,"p50":1.5,"p99":9.0,"failed":1}'
    assert parse_wrk(f"Running 1s test\n\nFIGURES {line}\n") == Load(5, 2.0, 1.5, 9.0, 1)


@pytest.mark.parametrize(
    "out", ["", 'FIGURES {"requests":0,"seconds":1,"p50":0,"p99":0,"failed":9}']
)
def test_a_load_that_nobody_answered(out: str) -> None:
    with pytest.raises(LoadFailed, match="refused"):
        parse_wrk(out, "connection refused")


@pytest.mark.parametrize(("percent", "value"), [(50, 50.0), (99, 99.0), (100, 100.0), (0, 1.0)])
def test_percentiles(percent: int, value: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], percent) == value


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_not_exceeded_by_its_share(values: list[float], percent: int) -> None:
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert found in ordered
    assert sum(value <= found for value in ordered) * 100 >= percent * len(ordered)


def test_the_request_is_valid() -> None:
    assert parse(ChatRequest, request_body(stream=True)).stream is True
    text = request_bytes(plan("http://h:1/v1/x", headers={"authorization": "Bearer k"}))
    assert text.startswith(b"POST /v1/x HTTP/1.1\r\nhost: h:1\r\n")
    assert b"\r\nauthorization: Bearer k\r\n\r\n{" in text


async def test_a_paced_stream_is_timed_from_its_first_token() -> None:
    callers = await callers_of(stream(mock.events(5), 0.05))
    found = summary(callers, 1.0)
    assert (found.requests, found.failed) == (3, 0)
    assert 0 < found.first < found.p50
    assert found.p50 >= 200
    assert {caller.size for caller in callers} == {len(b"".join(mock.events(5)))}


async def test_callers_ask_again() -> None:
    asked = iter([True, True, False])
    async with serving(stream(mock.events(5), 0)) as url, asyncio.timeout(30):
        (caller,) = await connect(plan(url, concurrent=1), lambda: next(asked))
        await caller.done
    assert len(caller.times) == len(caller.first) == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"nonsense\r\n\r\n",
    ],
    ids=["refused", "without a token", "not HTTP"],
)
async def test_a_bad_answer_has_failed(answer: bytes) -> None:
    callers = await callers_of(answer)
    assert [caller.failed for caller in callers] == [1, 1, 1]
    with pytest.raises(LoadFailed, match="nobody"):
        summary(callers, 1.0)


async def test_a_stream_that_breaks_off_has_failed() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(mock.HEAD + mock.framed(mock.events(3)[0]))
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(30):
        (caller,) = await connect(plan(f"http://127.0.0.1:{port}/", concurrent=1), never)
        await caller.done
    server.close()
    assert (caller.failed, len(caller.first), caller.times) == (1, 1, [])


def test_a_port_where_nobody_listens() -> None:
    with pytest.raises(LoadFailed, match="connection 1"):
        call(plan(f"http://127.0.0.1:{free_port()}/"))


@pytest.mark.parametrize("pace", [0.0, 0.001])
async def test_the_usage_comes_for_those_who_ask(pace: float) -> None:
    made = stream(mock.events(5), pace, [b'data: {"choices":[],"usage":{}}\n\n'])
    async with serving(made) as url, Client() as client:
        without = await client.request("POST", url, body=b'{"stream":true}')
        assert await without.read() == b"".join(mock.events(5))
        asked = b'{"stream":true,"stream_options":{"include_usage":true}}'
        payloads = list(
            Decoder().feed(await (await client.request("POST", url, body=asked)).read())
        )
    assert len(payloads) == 5 + 1 + 1
    assert payloads[-2:] == [b'{"choices":[],"usage":{}}', b"[DONE]"]


@pytest.mark.parametrize("kind", ["burst", "paced", "slow"])
def test_the_canned_streams(kind: str) -> None:
    shape: Shape = mock.SHAPES[kind]  # type: ignore[index]
    body = expected(kind)  # type: ignore[arg-type]
    payloads = list(Decoder().feed(body))
    assert len(payloads) == shape.events + 1
    assert payloads[-1] == b"[DONE]"
    assert content(body) == ("".join(mock.words(shape.events)), "stop")


def test_a_frame_is_an_http_chunk() -> None:
    class Sink:
        body = b""

        def on_body(self, body: bytes) -> None:
            self.body += body

    sink = Sink()
    httptools.HttpResponseParser(sink).feed_data(
        mock.HEAD + mock.framed(b"data: x\n\n") + mock.LAST
    )
    assert sink.body == b"data: x\n\n"
