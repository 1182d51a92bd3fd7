"""Load on one URL, and what the callers saw: wrk for short requests, our own client for streams
that take their time."""

import asyncio
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvloop

from benchmarks.contender import MODEL
from benchmarks.tools import path_of

SCRIPT = Path(__file__).with_name("load.lua")
LAST = b"0\r\n\r\n"


class LoadFailed(Exception):
    """The load could not be put on, or none of it was answered."""


class Load(msgspec.Struct, frozen=True):
    """What the callers of one run saw: ``p50`` and ``p99`` are milliseconds for a whole answer,
    ``failed`` counts the answers that were not a 200."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int = 0


def request_body(*, stream: bool) -> bytes:
    """A chat request of an ordinary size."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello! What is your name? " * 8},
    ]
    value = {"model": MODEL, "messages": messages, "max_tokens": 100, "stream": stream}
    return msgspec.json.encode(value)


def short_requests(
    url: str, headers: Mapping[str, str], *, stream: bool, connections: int, seconds: int
) -> Load:
    """wrk on ``url``. Raises ``LoadFailed``."""
    pairs = [part for pair in headers.items() for part in pair]
    argv = [path_of("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    argv += ["-s", str(SCRIPT), url, "--", request_body(stream=stream).decode(), *pairs]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return parse_wrk(done.stdout, done.stderr)


def parse_wrk(out: str, err: str = "") -> Load:
    """wrk's output, as ``load.lua`` writes it. Raises ``LoadFailed``."""
    for line in out.splitlines():
        if line.startswith("FIGURES "):
            found = msgspec.json.decode(line.removeprefix("FIGURES "), type=Load)
            if found.requests:
                return found
    raise LoadFailed(f"wrk measured nothing: {err.strip() or out.strip()}")


def long_streams(url: str, headers: Mapping[str, str], *, concurrent: int, seconds: float) -> Load:
    """Streams of ``url``, ``concurrent`` at a time; those that run at the end of the time are
    read to their end. Raises ``LoadFailed``."""
    return uvloop.run(_long_streams(url, headers, concurrent, seconds))


async def _long_streams(
    url: str, headers: Mapping[str, str], concurrent: int, seconds: float
) -> Load:
    request = _request(url, headers, request_body(stream=True))
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    make = partial(_Caller, request, started + seconds)
    callers: list[_Caller] = []
    for number in range(concurrent):
        _, caller = await loop.create_connection(make, parts.hostname or "", parts.port or 80)
        callers.append(caller)
        # Not all at once: callers do not march in step.
        if number % 10 == 9:
            await asyncio.sleep(0.02)
    await asyncio.gather(*(caller.done for caller in callers))
    elapsed = time.perf_counter() - started
    times = sorted(spent for caller in callers for spent in caller.times)
    if not times:
        raise LoadFailed("no stream was answered")
    return Load(
        requests=len(times),
        seconds=elapsed,
        p50=percentile(times, 50) * 1000,
        p99=percentile(times, 99) * 1000,
        failed=sum(caller.failed for caller in callers),
    )


def percentile(ordered: list[float], percent: float) -> float:
    """Of values in rising order, the one that ``percent`` of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]


def _request(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    parts = urlsplit(url)
    lines = [
        f"POST {parts.path} HTTP/1.1",
        f"host: {parts.netloc}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Caller(asyncio.Protocol):
    """One connection that asks again and again until ``deadline``."""

    def __init__(self, request: bytes, deadline: float) -> None:
        self.times: list[float] = []
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._deadline = deadline
        self._transport: asyncio.Transport
        self._began = 0.0
        self._fresh = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their class.
        self._transport = transport  # type: ignore[assignment]
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._fresh:
            self._fresh = False
            if not data.startswith(b"HTTP/1.1 200"):
                self.failed += 1
                self._transport.abort()
                return
        if data.endswith(LAST):
            now = time.perf_counter()
            self.times.append(now - self._began)
            if now < self._deadline:
                self._ask()
            else:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.failed += 1
        if not self.done.done():
            self.done.set_result(None)

    def _ask(self) -> None:
        self._fresh = True
        self._began = time.perf_counter()
        self._transport.write(self._request)
