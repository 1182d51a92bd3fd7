"""Fetching over TLS: the connection goes to a checked address, the certificate is for the name."""

import asyncio
import ipaddress
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.worker.image_fetch import Address, Fetcher
from tests.worker.certificates import Authority

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")

PATH = "messages.0.content.0.image_url.url"
LOOPBACK = ipaddress.ip_address("127.0.0.1")
PUBLIC = ipaddress.ip_address("93.184.215.14")


class TlsSite:
    """A server with a certificate; ``names`` are the server names that clients asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.names: list[str | None] = []
        self.asked: list[str] = []
        self.port = 0

    def context(self, certificate: Path, key: Path) -> ssl.SSLContext:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_cert_chain(certificate, key)
        found.sni_callback = lambda _socket, name, _context: self.names.append(name)
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            writer.write(self.answers[head.split(" ")[1]])
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def url(self, path: str = "/a", host: str = "site.test") -> str:
        return f"https://{host}:{self.port}{path}"


def answer(body: bytes, head: str = "HTTP/1.1 200 OK") -> bytes:
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def site(authority: Authority) -> AsyncIterator[TlsSite]:
    """The site of two names, and of no address."""
    site = TlsSite()
    site.answers["/a"] = answer(b"hello")
    made = authority.issue("site", "DNS:site.test", "DNS:xn--bcher-kva.test")
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=site.context(*made))
    site.port = server.sockets[0].getsockname()[1]
    async with server:
        yield site


async def _anywhere(host: str, port: int) -> list[Address]:
    """Every name is the site's; what is an address already stays one."""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        return [LOOPBACK]


def fetcher(
    authority: Authority | None, allowed: Callable[[Address], bool] = lambda _: True
) -> Fetcher:
    tls = ssl.create_default_context(cafile=authority.certificate) if authority else None
    return Fetcher(100, seconds=10.0, resolve=_anywhere, allowed=allowed, tls=tls)


async def test_the_right_name_passes(site: TlsSite, authority: Authority) -> None:
    assert await fetcher(authority).fetch(site.url(), PATH) == b"hello"
    # The server hears the name, in TLS and in HTTP, though the connection went to an address.
    assert site.names == ["site.test"]
    assert f"host: site.test:{site.port}\r\n" in site.asked[0].lower()


async def test_a_name_outside_ascii(site: TlsSite, authority: Authority) -> None:
    assert await fetcher(authority).fetch(site.url(host="bücher.test"), PATH) == b"hello"
    assert site.names == ["xn--bcher-kva.test"]


@pytest.mark.parametrize("host", ["other.test", "sub.site.test", "127.0.0.1"])
async def test_a_name_that_the_certificate_has_not(
    site: TlsSite, authority: Authority, host: str
) -> None:
    with pytest.raises(InvalidRequest, match="the connection failed"):
        await fetcher(authority).fetch(site.url(host=host), PATH)
    assert site.asked == []


async def test_an_authority_that_nobody_knows(site: TlsSite) -> None:
    with pytest.raises(InvalidRequest, match="the connection failed"):
        await fetcher(None).fetch(site.url(), PATH)
    assert site.asked == []


async def test_an_address_that_its_certificate_has(authority: Authority) -> None:
    site = TlsSite()
    site.answers["/a"] = answer(b"by number")
    made = authority.issue("number", "IP:127.0.0.1")
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=site.context(*made))
    site.port = server.sockets[0].getsockname()[1]
    async with server:
        found = await fetcher(authority).fetch(site.url(host="127.0.0.1"), PATH)
    assert found == b"by number"


async def test_redirections(site: TlsSite, authority: Authority) -> None:
    def moved(place: str) -> bytes:
        return answer(b"", f"HTTP/1.1 302 Found\r\nlocation: {place}")

    site.answers["/on"] = moved("/a")
    assert await fetcher(authority).fetch(site.url("/on"), PATH) == b"hello"
    # Each step has its own name checked, and its own address.
    site.answers["/other"] = moved(site.url("/a", "other.test"))
    with pytest.raises(InvalidRequest, match="the connection failed"):
        await fetcher(authority).fetch(site.url("/other"), PATH)
    for place in ("https://10.0.0.1/secret", "http://169.254.169.254/latest", "https://[::1]/"):
        site.answers["/in"] = moved(place)
        with pytest.raises(InvalidRequest, match="not a public one"):
            await fetcher(authority, LOOPBACK.__eq__).fetch(site.url("/in"), PATH)


async def test_nothing_is_said_to_a_private_address(site: TlsSite, authority: Authority) -> None:
    with pytest.raises(InvalidRequest, match="not a public one"):
        await fetcher(authority, PUBLIC.__eq__).fetch(site.url(), PATH)
    assert site.names == []


async def test_a_server_without_tls(authority: Authority) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"hello"))
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InvalidRequest, match="the connection failed"):
            await fetcher(authority).fetch(f"https://site.test:{port}/a", PATH)
