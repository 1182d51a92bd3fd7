"""Fetches an image that a request gives by its address, from public addresses only.

A server that opens whatever address a client names opens its own network to it (server-side
request forgery). So the name is resolved here, every address it has must be a public one, and the
connection goes to an address that was checked, not to the name again; a redirection starts over.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable

import httpx

from dev_opsgpt.protocol.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]

SECONDS = 15.0
REDIRECTS = 3
_LAST_PORT = 65_535
# Prefixes that stand for an IPv4 address somewhere else: NAT64 and 6to4.
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/32"), ipaddress.ip_network("2002::/16"))


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, and no detour to another."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED) or address.scope_id:
            return False
    return address.is_global and not address.is_multicast


async def resolve(host: str, port: int) -> list[Address]:
    """Every address of a host. Raises ``OSError``."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=6)
    return [ipaddress.ip_address(entry[4][0]) for entry in found]


class Fetcher:
    """Fetches what addresses give, ``size`` bytes at most in ``seconds`` altogether.

    ``allowed`` says which network addresses may be connected to; ``tls`` is for servers with
    certificates of one's own.
    """

    def __init__(
        self,
        size: int,
        *,
        seconds: float = SECONDS,
        resolve: Resolve = resolve,
        allowed: Callable[[Address], bool] = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._size = size
        self._seconds = seconds
        self._resolve = resolve
        self._allowed = allowed
        self._tls = tls if tls is not None else ssl.create_default_context()

    async def fetch(self, url: str, path: str) -> bytes:
        """The bytes at ``url``. Raises ``InvalidRequest`` at ``path``."""
        at = self._url(url, path)
        try:
            # No proxy from the environment: it would resolve the name once more, unchecked.
            async with (
                asyncio.timeout(self._seconds),
                httpx.AsyncClient(
                    verify=self._tls, trust_env=False, timeout=self._seconds
                ) as client,
            ):
                for _ in range(REDIRECTS + 1):
                    found = await self._once(client, at, path)
                    if isinstance(found, bytes):
                        return found
                    at = found
        except TimeoutError:
            raise _failed(path, "it took too long") from None
        except (httpx.HTTPError, OSError):
            raise _failed(path, "the connection failed") from None
        raise _failed(path, "it was redirected too often")

    async def _once(
        self, client: httpx.AsyncClient, url: httpx.URL, path: str
    ) -> bytes | httpx.URL:
        """The bytes, or where they are instead."""
        address = await self._address(url, path)
        authority = url.netloc.decode()
        headers = {"host": authority, "accept": "image/*", "accept-encoding": "identity"}
        target = url.copy_with(host=str(address), fragment=None)
        request = client.build_request("GET", target, headers=headers)
        # The name is what TLS asks for, and what the certificate has to be for.
        request.extensions["sni_hostname"] = url.raw_host.decode()
        response = await client.send(request, stream=True)
        try:
            if response.has_redirect_location:
                return self._url(response.headers["location"], path, url)
            if response.status_code != 200:
                raise _failed(path, f"the server answered {response.status_code}")
            return await self._body(response, path)
        finally:
            await response.aclose()

    def _url(self, text: str, path: str, base: httpx.URL | None = None) -> httpx.URL:
        """A URL that may be fetched if its host may, from ``base`` on where it is a part of one."""
        try:
            url = httpx.URL(text) if base is None else base.join(text)
            if (url.port or 0) > _LAST_PORT:
                raise ValueError("no such port")
        except (httpx.InvalidURL, ValueError):
            raise _failed(path, "the address is not a URL") from None
        if url.scheme not in ("http", "https") or not url.raw_host or url.userinfo:
            raise _failed(path, "only plain http and https addresses are fetched")
        return url

    async def _address(self, url: httpx.URL, path: str) -> Address:
        """A checked network address of the URL's host."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await self._resolve(url.raw_host.decode(), port)
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise _failed(path, "its host is not known")
        if not all(self._allowed(address) for address in addresses):
            raise _failed(path, "its host is not a public one")
        return addresses[0]

    async def _body(self, response: httpx.Response, path: str) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _failed(path, "the server sent it compressed")
        data = bytearray()
        async for piece in response.aiter_raw():
            data += piece
            if len(data) > self._size:
                raise _failed(path, f"it has more than {self._size} bytes")
        return bytes(data)


def _failed(path: str, reason: str) -> InvalidRequest:
    message = f"'{path}': the image could not be fetched: {reason}."
    return InvalidRequest(message, param=path, code="invalid_image_url")
