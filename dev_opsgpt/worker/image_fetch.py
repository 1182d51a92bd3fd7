"""Fetches an image that a request gives by its address, from public addresses only.

A server that opens whatever address a client names opens its own network to it (server-side
request forgery). So the name is resolved here, every address it has must be a public one, and the
connection goes to an address that was checked, not to the name again; a redirection starts over.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urljoin, urlsplit

import httpx

from dev_opsgpt.protocol.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]

SECONDS = 15.0
REDIRECTS = 3
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
        try:
            # No proxy from the environment: it would resolve the name once more, unchecked.
            async with (
                asyncio.timeout(self._seconds),
                httpx.AsyncClient(
                    verify=self._tls, trust_env=False, timeout=self._seconds
                ) as client,
            ):
                for _ in range(REDIRECTS + 1):
                    found = await self._once(client, url, path)
                    if isinstance(found, bytes):
                        return found
                    url = urljoin(url, found)
        except TimeoutError:
            raise _failed(path, "it took too long") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            raise _failed(path, "the connection failed") from None
        raise _failed(path, "it was redirected too often")

    async def _once(self, client: httpx.AsyncClient, url: str, path: str) -> bytes | str:
        """The bytes, or where they are instead."""
        target, host, authority = await self._target(url, path)
        headers = {"host": authority, "accept": "image/*", "accept-encoding": "identity"}
        request = client.build_request("GET", target, headers=headers)
        request.extensions["sni_hostname"] = host
        response = await client.send(request, stream=True)
        try:
            if response.is_redirect:
                return response.headers["location"]
            if response.status_code != 200:
                raise _failed(path, f"the server answered {response.status_code}")
            return await self._body(response, path)
        finally:
            await response.aclose()

    async def _target(self, url: str, path: str) -> tuple[httpx.URL, str, str]:
        """The URL with a checked network address for its host, the host, and its authority."""
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise _failed(path, "the address is not a URL") from None
        host = parts.hostname
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
            raise _failed(path, "only plain http and https addresses are fetched")
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise _failed(path, "its host is not known")
        if not all(self._allowed(address) for address in addresses):
            raise _failed(path, "its host is not a public one")
        target = httpx.URL(url).copy_with(host=str(addresses[0]), fragment=None)
        return target, host, parts.netloc

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
