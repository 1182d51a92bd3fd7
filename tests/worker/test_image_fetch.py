"""Fetching: from public addresses only, by a real server that stands for one."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable

import pytest

from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.worker.image_fetch import Address, Fetcher, is_public, resolve

PATH = "messages.0.content.0.image_url.url"
LOOPBACK = ipaddress.ip_address("127.0.0.1")


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8"])
def test_addresses_that_are(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


class Site:
    """A server under a name that nobody else knows."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.port = 0
        self.served = asyncio.Semaphore(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            if answer := self.answers[head.split(" ")[1]]:
                writer.write(answer)
            else:
                await reader.read()  # says nothing until the other side hangs up
        finally:
            writer.close()
            self.served.release()

    async def resolve(self, host: str, port: int) -> list[Address]:
        if host.endswith(".invalid"):
            raise OSError("no such host")
        return [LOOPBACK] if host == "site.test" else await resolve(host, port)

    def fetcher(self, allowed: Callable[[Address], bool] = lambda _: True) -> Fetcher:
        return Fetcher(100, seconds=2.0, resolve=self.resolve, allowed=allowed)

    def url(self, path: str, host: str = "site.test") -> str:
        return f"http://{host}:{self.port}{path}"


def answer(body: bytes, head: str = "HTTP/1.1 200 OK") -> bytes:
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    async with server:
        yield site
        for _ in site.asked:
            await site.served.acquire()


async def test_an_image_is_fetched(site: Site) -> None:
    site.answers["/a.png?b=c"] = answer(b"hello")
    assert await site.fetcher().fetch(site.url("/a.png?b=c#d"), PATH) == b"hello"
    (head,) = site.asked
    assert f"host: site.test:{site.port}\r\n" in head.lower()
    assert "authorization" not in head.lower()


async def test_redirections_are_followed_and_checked(site: Site) -> None:
    site.answers["/a"] = answer(b"", "HTTP/1.1 302 Found\r\nlocation: /b")
    site.answers["/b"] = answer(b"hello")
    assert await site.fetcher().fetch(site.url("/a"), PATH) == b"hello"
    site.answers["/in"] = answer(b"", "HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/secret")
    with pytest.raises(InvalidRequest, match="not a public one"):
        await site.fetcher(LOOPBACK.__eq__).fetch(site.url("/in"), PATH)
    site.answers["/file"] = answer(b"", "HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd")
    with pytest.raises(InvalidRequest, match="only plain http"):
        await site.fetcher().fetch(site.url("/file"), PATH)
    site.answers["/on"] = answer(b"", "HTTP/1.1 302 Found\r\nlocation: /on")
    with pytest.raises(InvalidRequest, match="redirected too often"):
        await site.fetcher().fetch(site.url("/on"), PATH)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"],
)
async def test_our_own_network_is_closed(site: Site, host: str) -> None:
    site.answers["/a"] = answer(b"secret")
    with pytest.raises(InvalidRequest, match=r"not a public one|not known") as caught:
        await Fetcher(100).fetch(site.url("/a", host), PATH)
    assert caught.value.param == PATH
    assert site.asked == []


async def test_a_name_with_one_private_address_is_refused(site: Site) -> None:
    async def both(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address("93.184.215.14"), LOOPBACK]

    with pytest.raises(InvalidRequest, match="not a public one"):
        await Fetcher(100, resolve=both).fetch(site.url("/a"), PATH)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(b"x" * 101), "more than 100 bytes"),
        (answer(b"no", "HTTP/1.1 404 Not Found"), "answered 404"),
        (answer(b"x", "HTTP/1.1 200 OK\r\ncontent-encoding: gzip"), "compressed"),
        (answer(b"", "HTTP/1.1 302 Found"), "answered 302"),
        (answer(b"", "HTTP/1.1 302 Found\r\nlocation: http://[::1/"), "connection failed"),
        (answer(b"", "HTTP/1.1 302 Found\r\nlocation: http://u:p@site.test/"), "only plain"),
        (b"nonsense\r\n\r\n", "connection failed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nx", "connection failed"),
        (b"", "took too long"),
    ],
)
async def test_faults(site: Site, reply: bytes, words: str) -> None:
    site.answers["/a"] = reply
    with pytest.raises(InvalidRequest, match=words) as caught:
        await site.fetcher().fetch(site.url("/a"), PATH)
    assert caught.value.code == "invalid_image_url"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://", "only plain"),
        ("http://user:word@site.test/", "only plain"),
        ("http://site.test:99999/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://no-such-host.invalid/", "not known"),
        ("http://" + "a" * 70 + ".test/", "not known"),
    ],
)
async def test_addresses_that_mean_nothing(site: Site, url: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await site.fetcher().fetch(url, PATH)
