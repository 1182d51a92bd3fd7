"""Calls from the controller to workers and attached servers."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import TypeVar

import httpx
import msgspec

from dev_opsgpt.protocol.fastchat import WorkerStatus
from dev_opsgpt.routing.table import Worker

TIMEOUT = 5.0
RELAY_TIMEOUT = httpx.Timeout(TIMEOUT, read=600.0)
MAX_ANSWER = 1024 * 1024

# Uncompressed, so that the size of what is read is the size of what is kept.
_PLAIN: Mapping[str, str] = MappingProxyType(
    {"accept-encoding": "identity", "content-type": "application/json"}
)

T = TypeVar("T")


class PeerFailed(Exception):
    """A call to another process failed; the message says how, in one line and without secrets."""


class PeerUnreachable(PeerFailed):
    """Nobody listens at the address."""


class Released(msgspec.Struct):
    """What a worker answers on ``/release``."""

    code: int
    msg: str = ""


def new_client() -> httpx.AsyncClient:
    """A client for calls inside the cluster: straight (no proxy from the environment), following
    no redirect, so that a call goes nowhere but where it was sent."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    return httpx.AsyncClient(
        trust_env=False, follow_redirects=False, timeout=TIMEOUT, limits=limits
    )


class Peers:
    """The calls. The cluster's secret goes along to workers of ours only."""

    def __init__(self, client: httpx.AsyncClient, secret: str | None) -> None:
        self._client = client
        self._ours = {"authorization": f"Bearer {secret}"} if secret else {}

    async def status(self, address: str, *, ours: bool) -> WorkerStatus:
        """A worker's own word on its models and load. Raises ``PeerFailed``."""
        url = f"{address.rstrip('/')}/worker_get_status"
        return await self._call("POST", url, WorkerStatus, self._ours if ours else {})

    async def release(self, worker: Worker, seconds: float) -> None:
        """Asks a worker to stop. Raises ``PeerFailed``."""
        headers = self._ours if worker.kind == "opsgpt" else {}
        url = f"{worker.address.rstrip('/')}/release"
        reply = await self._call("POST", url, Released, headers, b"{}", seconds)
        if reply.code != 200:
            raise PeerFailed(f"it answered {reply.code}: {reply.msg[:200]}")

    async def listed_models(self, url: str, api_key: str | None) -> tuple[str, ...]:
        """The names of the models that an attached server lists. Raises ``PeerFailed``."""
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        listing = await self._call("GET", f"{url.rstrip('/')}/models", _Listing, headers)
        return tuple(model.id for model in listing.data)

    async def generate(self, worker: Worker, body: bytes) -> AsyncGenerator[bytes, None]:
        """The bytes that a worker streams on FastChat's generate route. Raises ``PeerFailed``."""
        headers = self._ours if worker.kind == "opsgpt" else {}
        headers = {**_PLAIN, **headers}
        url = f"{worker.address.rstrip('/')}/worker_generate_stream"
        try:
            async with self._client.stream(
                "POST", url, headers=headers, content=body, timeout=RELAY_TIMEOUT
            ) as response:
                if response.status_code != 200:
                    raise PeerFailed(f"it answered with status {response.status_code}")
                async for piece in response.aiter_raw():
                    yield piece
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failure(error) from None

    async def _call(
        self,
        method: str,
        url: str,
        answer: type[T],
        headers: Mapping[str, str],
        body: bytes = b"",
        seconds: float = TIMEOUT,
    ) -> T:
        """One bounded exchange: in time, in size, in shape."""
        headers = {**_PLAIN, **headers}
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(
                    method, url, headers=headers, content=body, timeout=seconds
                ) as response,
            ):
                found = await _read(response)
        except TimeoutError:
            raise PeerFailed(f"no answer within {seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failure(error) from None
        if response.status_code != 200:
            raise PeerFailed(f"it answered with status {response.status_code}")
        try:
            return msgspec.json.decode(found, type=answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PeerFailed(f"its answer has the wrong shape: {error}") from None


class _ListedModel(msgspec.Struct):
    id: str


class _Listing(msgspec.Struct):
    data: list[_ListedModel]


async def _read(response: httpx.Response) -> bytes:
    found = bytearray()
    async for piece in response.aiter_raw():
        found += piece
        if len(found) > MAX_ANSWER:
            raise PeerFailed(f"its answer is longer than {MAX_ANSWER} bytes")
    return bytes(found)


def _failure(error: httpx.HTTPError | httpx.InvalidURL) -> PeerFailed:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return PeerUnreachable("nobody listens there")
    return PeerFailed(f"the call failed ({type(error).__name__})")
