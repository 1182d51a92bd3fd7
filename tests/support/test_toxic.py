"""The proxy that chaos tests put before workers does the harm that it is told to do."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.toxic import Toxic


class Upstream:
    """Answers each line: a number n with n bytes, in one write."""

    def __init__(self) -> None:
        self.port = 0
        self.ended = asyncio.Event()
        self.tasks: set[asyncio.Task[None] | None] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        try:
            while line := await reader.readline():
                writer.write(bytes(i % 251 for i in range(int(line))))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.ended.set()
            writer.close()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    found = Upstream()
    server = await asyncio.start_server(found, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found
        await asyncio.gather(*(task for task in found.tasks if task is not None))


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[Toxic]:
    with Toxic(upstream.port) as found:
        yield found


class Caller:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, proxy: Toxic) -> "Caller":
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    def ask(self, size: int) -> None:
        self.writer.write(b"%d\n" % size)

    async def get(self, size: int, within: float = 10.0) -> bytes:
        async with asyncio.timeout(within):
            return await self.reader.readexactly(size)

    async def hears_nothing(self) -> bool:
        try:
            await self.get(1, within=0.1)
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def caller(proxy: Toxic) -> AsyncIterator[Caller]:
    found = await Caller.of(proxy)
    yield found
    found.writer.close()


async def test_it_passes_everything_on(proxy: Toxic, upstream: Upstream, caller: Caller) -> None:
    for size in (1, 100, 3_000_000):
        caller.ask(size)
        assert await caller.get(size) == bytes(i % 251 for i in range(size))
    assert (proxy.accepted, proxy.open) == (1, 1)
    caller.writer.close()
    async with asyncio.timeout(30):
        await upstream.ended.wait()
        while proxy.open:
            await asyncio.sleep(0.01)


async def test_slow(proxy: Toxic, caller: Caller) -> None:
    proxy.slow(0.02, piece=10)
    began = time.monotonic()
    caller.ask(50)
    await caller.get(50)
    assert time.monotonic() - began >= 5 * 0.02 * 0.9
    proxy.slow(3600)
    caller.ask(5)
    assert await caller.hears_nothing()
    proxy.heal()
    await caller.get(5)


async def test_reset(proxy: Toxic, upstream: Upstream, caller: Caller) -> None:
    caller.ask(3)
    await caller.get(3)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await caller.get(1)
    async with asyncio.timeout(30):
        await upstream.ended.wait()
    later = await Caller.of(proxy)
    assert await later.hears_nothing(), "it waits for a request"
    later.ask(3)
    with pytest.raises(ConnectionResetError):
        await later.get(1)
    proxy.heal()
    last = await Caller.of(proxy)
    last.ask(3)
    await last.get(3)
    last.writer.close()


async def test_black_hole(proxy: Toxic, caller: Caller) -> None:
    caller.ask(3)
    await caller.get(3)
    proxy.black_hole()
    caller.ask(3)
    new = await Caller.of(proxy)
    new.ask(5)
    assert await caller.hears_nothing()
    assert await new.hears_nothing()
    proxy.heal()
    await caller.get(3)
    await new.get(5)
    new.writer.close()


async def test_a_black_hole_in_the_middle_of_an_answer(proxy: Toxic, caller: Caller) -> None:
    proxy.slow(0.02, piece=10)
    caller.ask(1000)
    await caller.get(50)
    proxy.black_hole()
    got = 50
    while not await caller.hears_nothing():
        got += 1
    assert got < 1000
    proxy.heal()
    await caller.get(1000 - got)


@pytest.mark.parametrize("size", [0, 1, 70_000])
async def test_cut(proxy: Toxic, upstream: Upstream, caller: Caller, size: int) -> None:
    caller.ask(3)
    await caller.get(3)
    proxy.cut_after(size)
    caller.ask(100_000)
    async with asyncio.timeout(30):
        assert len(await caller.reader.read(-1)) == size, "counted from the command on"
        await upstream.ended.wait()
    new = await Caller.of(proxy)
    new.ask(100_000)
    assert len(await new.reader.read(-1)) == size
    new.writer.close()


async def test_cut_by_a_reset(proxy: Toxic, caller: Caller) -> None:
    proxy.cut_after(10, reset=True)
    caller.ask(10)
    with pytest.raises(ConnectionResetError):
        await caller.get(11)


async def first_byte(proxy: Toxic) -> bytes:
    caller = await Caller.of(proxy)
    try:
        return await caller.get(1)
    finally:
        caller.writer.close()


async def test_the_far_side_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        with Toxic(taken.getsockname()[1]) as proxy, pytest.raises(ConnectionResetError):
            await first_byte(proxy)


def test_a_test_that_blocks_does_not_stall_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Toxic(listener.getsockname()[1]) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client,
    ):
        listener.settimeout(10)
        server, _ = listener.accept()
        server.settimeout(10)
        with server:
            client.sendall(b"ping")
            assert server.recv(4) == b"ping"
            proxy.reset()
            for side in (client, server):
                with pytest.raises(ConnectionResetError):
                    side.recv(1)
