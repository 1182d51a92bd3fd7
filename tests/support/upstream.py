"""A model's server that does what a test says with each request: answers, refuses, hangs, dies."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from dev_opsgpt.controller.options import AttachedServer
from dev_opsgpt.protocol.record import Record
from tests.support.ports import free_ports
from tests.support.stack import Stack, running

_LINGER_NOT = struct.pack("ii", 1, 0)
USAGE = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


class Call:
    """One request that has arrived, and the means to answer it."""

    def __init__(
        self, head: bytes, body: dict[str, Any], streams: "tuple[asyncio.StreamReader, Any]"
    ) -> None:
        self.head = head
        self.body = body
        self.reader, self.writer = streams
        self.left = False
        """Whether its sender hung up while it was waited for."""

    async def status(self, status: int, **headers: str) -> None:
        """A whole answer that says no, in OpenAI's shape."""
        error = {"message": "No.", "type": "server_error", "param": None, "code": f"no_{status}"}
        await self.json({"error": error}, status, headers)

    async def json(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """A whole answer."""
        data = json.dumps(value).encode()
        lines = "".join(f"{name}: {text}\r\n" for name, text in (headers or {}).items())
        self.writer.write(
            b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
            % (status, lines.replace("_", "-").encode(), len(data), data)
        )
        await self.writer.drain()

    async def say(self, text: str = "fine") -> None:
        """A good answer, streamed if it was asked for like that."""
        if not self.body.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await self.json({"model": self.body["model"], "choices": [choice], "usage": USAGE})
            return
        await self.begin()
        await self.chunk(text)
        await self.end()

    async def begin(self) -> None:
        """The head of a stream."""
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        await self.writer.drain()

    async def chunk(self, text: str, **fields: Any) -> None:
        """An event of a stream."""
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        await self.raw(b"data: %b\n\n" % json.dumps({"choices": [choice]} | fields).encode())

    async def raw(self, data: bytes) -> None:
        """Bytes of a stream."""
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        """The end of a stream, with its usage where that was asked for."""
        if (self.body.get("stream_options") or {}).get("include_usage"):
            await self.raw(b"data: %b\n\n" % json.dumps({"choices": [], "usage": USAGE}).encode())
        await self.raw(b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")

    def reset(self) -> None:
        """The connection is reset, as when the process dies."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.writer.transport.abort()

    async def hang(self) -> None:
        """Nothing, until the sender hangs up."""
        with contextlib.suppress(ConnectionError):
            self.left = await self.reader.read(1) == b""


Behaviour = Callable[[Call], Awaitable[None]]


async def fine(call: Call) -> None:
    await call.say()


async def reset(call: Call) -> None:
    call.reset()


async def hang(call: Call) -> None:
    await call.hang()


def says(text: str) -> Behaviour:
    async def behave(call: Call) -> None:
        await call.say(text)

    return behave


def refuses(status: int, **headers: str) -> Behaviour:
    async def behave(call: Call) -> None:
        await call.status(status, **headers)

    return behave


class Upstream:
    """An OpenAI-compatible server that lists one model and behaves as it is told to."""

    def __init__(self, behave: Behaviour = fine, model: str = "echo") -> None:
        self.behave = behave
        self.model = model
        self.calls: list[Call] = []
        self.at_work = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def asked(self) -> int:
        """Requests so far."""
        return len(self.calls)

    async def start(self) -> None:
        """Listens; again on the same port after ``stop``."""
        self.port = self.port or free_ports(1)[0]
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Listens no more, and closes what is open."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        while self._open:
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET "):
                    call = Call(head, {}, (reader, writer))
                    await call.json({"data": [{"id": self.model}]})
                    continue
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                call = Call(head, body, (reader, writer))
                self.calls.append(call)
                self.at_work += 1
                try:
                    await self.behave(call)
                finally:
                    self.at_work -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


@asynccontextmanager
async def attached(
    upstreams: Mapping[str, Sequence[Upstream]] | Sequence[Upstream],
    *,
    through: Callable[[Upstream], str] = lambda upstream: upstream.url,
    probe_interval: float = 0.2,
    **gateway: Any,
) -> AsyncIterator[Stack]:
    """A gateway and a controller with these servers attached, by the names of their models, or all
    as replicas of "echo". ``through`` gives the URL that one is called by: a proxy's, say."""
    named = upstreams if isinstance(upstreams, Mapping) else {"echo": upstreams}
    async with AsyncExitStack() as exits:
        servers = []
        for name, replicas in named.items():
            for one in replicas:
                one.model = name
                await one.start()
                exits.push_async_callback(one.stop)
                servers.append(AttachedServer(name, through(one)))
        options = {"attached": tuple(servers), "probe_interval": probe_interval}
        stack = await exits.enter_async_context(running({}, controller=options, **gateway))
        for name, replicas in named.items():
            await stack.expect(len(replicas), name)
        yield stack


def chat(text: str = "one two", **fields: Any) -> dict[str, Any]:
    """The body of a chat."""
    return {"model": "echo", "messages": [{"role": "user", "content": text}]} | fields


async def ask(stack: Stack, text: str = "one two", **fields: Any) -> httpx.Response:
    """A chat with the gateway."""
    return await stack.client.post("/v1/chat/completions", json=chat(text, **fields))


def records(stack: Stack) -> list[Record]:
    """The records of the requests that are over from now on."""
    found: list[Record] = []
    gateway = stack.gateway._gateway
    assert gateway is not None
    gateway._hot_path._sinks.append(found.append)  # type: ignore[attr-defined]
    return found


async def figures(stack: Stack, name: str) -> dict[str, float]:
    """A metric's samples by the text of their labels."""
    found = {}
    for line in (await stack.client.get("/metrics")).text.splitlines():
        if line.startswith(name + "{"):
            labels, _, value = line.removeprefix(name).rpartition(" ")
            found[labels] = float(value)
    return found


async def quiet(stack: Stack) -> None:
    """Waits until the gateway has nothing in flight and nobody waiting."""
    async with asyncio.timeout(30):
        while any(
            [
                *(await figures(stack, "opsgpt_requests_in_flight")).values(),
                *(await figures(stack, "opsgpt_queue_depth")).values(),
            ]
        ):
            await asyncio.sleep(0.02)


async def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Waits until something holds. Raises ``TimeoutError``."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)
