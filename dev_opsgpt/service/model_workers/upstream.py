"""HTTP to providers: our own client, or httpx where a proxy stands between.

Our client costs a fraction of httpx for each piece of a stream, and a machine that serves online
models only has nothing but such streams; it knows no proxies, which httpx does well. Only a
configured proxy is used: variables such as HTTPS_PROXY are not read.
"""

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from dev_opsgpt.protocol.errors import RequestTooLarge
from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.errors import ConnectFailed, ConnectionBroken, ReadTimeout

CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True)
class Answer:
    """A provider's answer while it arrives; header names are in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: AsyncIterator[bytes]

    def header(self, name: bytes) -> bytes:
        """The first value of a header, empty where there is none."""
        return next((value for key, value in self.headers if key == name), b"")

    @property
    def retry_after(self) -> float | None:
        """Seconds of Retry-After, where it is given as a number."""
        return seconds(self.header(b"retry-after"))

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises ``RequestTooLarge`` past ``limit`` bytes."""
        found = bytearray()
        async for piece in self.body:
            found += piece
            if len(found) > limit:
                raise RequestTooLarge(f"The provider's answer is larger than {limit} bytes.")
        return bytes(found)


class Upstream(Protocol):
    """Sends requests to providers."""

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """The answer to a POST; leaving the context ends the exchange. Raises the errors of
        ``transport/errors.py``, on entering and while the body is read."""
        ...

    async def close(self) -> None:
        """Ends everything."""
        ...


def seconds(value: Any) -> float | None:
    """What a Retry-After header says, where it is a number of seconds; a date is not read."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if 0 <= found < math.inf else None


class DirectUpstream:
    """Over our own client. ``timeout`` is how many seconds a provider may be silent."""

    def __init__(self, timeout: float) -> None:
        self._client = Client(connect_timeout=CONNECT_TIMEOUT, read_timeout=timeout)
        self._origins: dict[str, Origin] = {}

    @asynccontextmanager
    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[Answer]:
        """See ``Upstream.post``."""
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc}"
        origin = self._origins.get(place)
        if origin is None:
            origin = self._origins[place] = Origin(place)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        response = await self._client.send(origin, origin.head("POST", path, headers), body)
        try:
            yield Answer(response.status, list(response.headers.items()), aiter(response))
        finally:
            response.close()

    async def close(self) -> None:
        """See ``Upstream.close``."""
        self._client.close()


class ProxiedUpstream:
    """Through a proxy: ``http://``, ``https://`` or, with ``httpx[socks]``, ``socks5://``.

    Raises ``ValueError`` for an unknown kind and ``ImportError`` where SOCKS is not installed.
    """

    def __init__(self, proxy: str, timeout: float) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(
            proxy=proxy,
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            limits=limits,
            trust_env=False,
        )

    @asynccontextmanager
    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[Answer]:
        """See ``Upstream.post``."""
        request = self._client.build_request("POST", url, headers=dict(headers), content=body)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            raise _ours(error) from None
        try:
            found = [(name.lower(), value) for name, value in response.headers.raw]
            yield Answer(response.status_code, found, _pieces(response))
        finally:
            await response.aclose()

    async def close(self) -> None:
        """See ``Upstream.close``."""
        await self._client.aclose()


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.TransportError as error:
        raise _ours(error) from None


def _ours(error: httpx.TransportError) -> ConnectFailed | ConnectionBroken | ReadTimeout:
    # The texts of httpx's errors are left out: they may name the proxy and its password.
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError | httpx.ProxyError):
        return ConnectFailed("Cannot connect to the provider through the proxy.")
    if isinstance(error, httpx.TimeoutException):
        return ReadTimeout("The provider did not answer in time.")
    return ConnectionBroken("The connection to the provider broke.")
