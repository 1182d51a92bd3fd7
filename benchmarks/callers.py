"""Callers that read every answer to its end and note when its first token came; each has one
connection and asks again as soon as it is answered."""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop

from benchmarks.load import Load, LoadFailed, percentile

PATIENCE = 240.0
"""Seconds after the end of the time in which answers that were begun have to end."""
AT_ONCE = 10
STEP = 0.02


class Plan(msgspec.Struct, frozen=True):
    """What callers do: ``concurrent`` of them post ``body`` to ``url`` for ``seconds`` and read
    what was begun then to its end. ``token`` is in every answer, where its first token is."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    token: bytes
    concurrent: int
    seconds: float


class Caller(asyncio.Protocol):
    """One connection. ``again`` says whether to ask once more. ``times`` and ``first`` are seconds,
    to the end and to the first token of each answer; ``size`` is what all bodies held."""

    def __init__(self, request: bytes, token: bytes, again: Callable[[], bool]) -> None:
        self.times: list[float] = []
        self.first: list[float] = []
        self.size = 0
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._token = token
        self._again = again
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._began = 0.0
        self._unseen: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open: asks."""
        # uvloop's transports are asyncio's in all but their class.
        self._transport = transport  # type: ignore[assignment]
        self._ask()

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()

    def on_headers_complete(self) -> None:
        """The parser has read the head."""
        if self._parser.get_status_code() != 200:
            self._fail()

    def on_body(self, body: bytes) -> None:
        """The parser has read a part of the body."""
        self.size += len(body)
        if self._unseen is not None:
            self._unseen += body
            if self._token in self._unseen:
                self.first.append(time.perf_counter() - self._began)
                self._unseen = None

    def on_message_complete(self) -> None:
        """The parser has read an answer."""
        if self._unseen is not None:
            self._fail()
        elif not self.done.done():
            self.times.append(time.perf_counter() - self._began)
            if self._again():
                self._ask()
            else:
                self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: by us, when all was said, else by a router that broke off."""
        if not self.done.done():
            self._fail()

    def give_up(self) -> None:
        """Waits no longer; an answer that is under way has failed."""
        if not self.done.done():
            self._fail()

    def _ask(self) -> None:
        self._unseen = b""
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def _fail(self) -> None:
        self.failed += 1
        self._end()

    def _end(self) -> None:
        self._unseen = None
        if not self.done.done():
            self.done.set_result(None)
        self._transport.close()


def call(plan: Plan) -> Load:
    """Carries a plan out. Raises ``LoadFailed``."""
    return uvloop.run(_call(plan))


async def _call(plan: Plan) -> Load:
    started = time.perf_counter()
    callers = await connect(plan, lambda: time.perf_counter() < started + plan.seconds)
    await asyncio.wait([caller.done for caller in callers], timeout=plan.seconds + PATIENCE)
    for caller in callers:
        caller.give_up()
    return summary(callers, time.perf_counter() - started)


async def connect(plan: Plan, again: Callable[[], bool]) -> list[Caller]:
    """All callers of a plan, asking; each asks again while ``again`` says so. Raises
    ``LoadFailed``."""
    loop = asyncio.get_running_loop()
    make = partial(Caller, request_bytes(plan), plan.token, again)
    parts = urlsplit(plan.url)
    callers: list[Caller] = []
    for number in range(plan.concurrent):
        try:
            _, caller = await loop.create_connection(make, parts.hostname or "", parts.port or 80)
        except OSError as error:
            raise LoadFailed(f"{plan.url} refused connection {number + 1}: {error}") from None
        callers.append(caller)
        # Not all at once: callers do not march in step.
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(STEP)
    return callers


def never() -> bool:
    """For callers who ask once."""
    return False


def summary(callers: list[Caller], seconds: float) -> Load:
    """What all of them saw. Raises ``LoadFailed`` where nobody was answered."""
    times = sorted(spent for caller in callers for spent in caller.times)
    first = sorted(spent for caller in callers for spent in caller.first)
    if not times:
        raise LoadFailed("nobody was answered")
    return Load(
        requests=len(times),
        seconds=seconds,
        p50=percentile(times, 50) * 1000,
        p99=percentile(times, 99) * 1000,
        failed=sum(caller.failed for caller in callers),
        first=percentile(first, 50) * 1000,
    )


def request_bytes(plan: Plan) -> bytes:
    """The whole request of a plan."""
    parts = urlsplit(plan.url)
    lines = [
        f"POST {parts.path} HTTP/1.1",
        f"host: {parts.netloc}",
        "content-type: application/json",
        f"content-length: {len(plan.body)}",
        *(f"{name}: {value}" for name, value in plan.headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + plan.body
