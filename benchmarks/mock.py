"""An OpenAI server that streams canned events, lean enough not to be the bottleneck:
``python -m benchmarks.mock burst|paced PORT``.

Every event is an HTTP chunk of its own, as real servers send them. "burst" sends 200 at once,
"paced" 50, one every 20 ms.
"""

import asyncio
import sys

import httptools
import msgspec
import uvloop

from benchmarks.contender import MODEL
from benchmarks.upstream import listing

BURST_CHUNKS = 200
PACED_CHUNKS = 50
PACE = 0.02
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def events(count: int) -> list[bytes]:
    """``count`` chat chunks and ``[DONE]``, as server-sent events."""
    words = [_chunk({"content": f" word{number:03}"}, None) for number in range(count - 1)]
    return [*words, _chunk({}, "stop"), b"data: [DONE]\n\n"]


def _chunk(delta: dict[str, str], finish: str | None) -> bytes:
    value = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return b"data: %b\n\n" % msgspec.json.encode(value)


def framed(event: bytes) -> bytes:
    """An event as an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(event), event)


class Mock(asyncio.Protocol):
    """One connection."""

    def __init__(self, *, paced: bool) -> None:
        frames = [framed(event) for event in events(PACED_CHUNKS if paced else BURST_CHUNKS)]
        # The [DONE] goes along with the last chunk.
        frames[-2:] = [frames[-2] + frames[-1] + LAST]
        self._frames = frames if paced else [b"".join(frames)]
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._path = b""
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        # uvloop's transports are asyncio's in all but their class.
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """A piece of a request."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """The parser has read the path."""
        self._path = url

    def on_message_complete(self) -> None:
        """The parser has read a request."""
        if self._path == b"/v1/chat/completions":
            self._send(0, asyncio.get_running_loop().time())
            return
        body = listing()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)

    def _send(self, number: int, started: float) -> None:
        frame = self._frames[number]
        self._transport.write(HEAD + frame if number == 0 else frame)
        number += 1
        if number < len(self._frames):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(started + number * PACE, self._send, number, started)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if self._timer is not None:
            self._timer.cancel()


async def _serve(kind: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Mock(paced=kind == "paced"), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
