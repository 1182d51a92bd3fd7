"""Clients that read slowly, and clients that leave."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.load import chat, load, report
from tests.support.service import Service, serving, until

pytestmark = pytest.mark.slow

SLOW = 3
# Every token with its twenty likeliest others: some 15 MB a stream, far more than sockets hold.
BULKY = {"stream": True, "logprobs": True, "top_logprobs": 20}
LONGEST = 3900
MOST_GROWTH = 8 << 20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("service")
    with serving(folder) as found:
        yield found


@asynccontextmanager
async def slow_reader(service: Service, **fields: object) -> AsyncIterator[asyncio.Task[int]]:
    """A client that takes one byte a second through a small window; the bytes it has read."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", service.port))
        body = json.dumps(chat(tokens=LONGEST, **fields)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        await loop.sock_sendall(sock, head.encode() + b"\r\n" + body)

        async def read() -> int:
            size = 0
            while data := await loop.sock_recv(sock, 1):
                size += len(data)
                await asyncio.sleep(1)
            return size

        task = asyncio.create_task(read())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def running(service: Service) -> int:
    """Requests that hold a slot of the worker."""
    found: int = service.health()["running"]
    return found


async def test_slow_readers_block_nobody_and_fill_no_memory(service: Service) -> None:
    await service.expect(1)
    (gateway,) = service.children("gateway")
    (worker,) = service.children("engine")
    async with load(service.gateway, clients=2) as clients:
        await clients.served(20)
        before = gateway.rss, worker.rss
        async with AsyncExitStack() as stack:
            readers = [
                await stack.enter_async_context(slow_reader(service, **BULKY)) for _ in range(SLOW)
            ]
            await until(lambda: running(service) >= SLOW, 60)
            most = 0
            for _ in range(5):
                await clients.served(5)
                await asyncio.sleep(0.5)
                most = max(most, gateway.rss)
            assert not any(reader.done() for reader in readers), "they are all still reading"
            grown = worker.rss - before[1]
        await clients.served(10)
    await until(lambda: running(service) == 0, 60)
    report(
        "slow readers",
        [clients],
        gateway_grew=f"{(most - before[0]) / 1e6:.1f} MB",
        worker_grew=f"{grown / 1e6:.1f} MB",
    )
    assert clients.bad() == []
    assert most - before[0] < MOST_GROWTH


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_slot(service: Service, stream: bool) -> None:
    await service.expect(1)
    body = chat(tokens=LONGEST, stream=stream)
    async with httpx.AsyncClient(base_url=service.gateway, timeout=120) as client:
        began = time.monotonic()
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        whole = time.monotonic() - began
        await until(lambda: running(service) == 0, 60)
        request = client.build_request("POST", "/v1/chat/completions", json=body)
        if stream:
            answer = await client.send(request, stream=True)
            await anext(answer.aiter_lines())
            assert running(service) == 1
            await answer.aclose()
        else:
            task = asyncio.create_task(client.send(request))
            await until(lambda: running(service) == 1, 60)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    freed = await until(lambda: running(service) == 0, 60)
    print(f"client left (stream={stream}): slot free after {freed:.2f} s of {whole:.2f}")
    assert freed < whole / 2, "it was given up, and did not come to its end"
