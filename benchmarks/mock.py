"""An OpenAI server that streams canned events, lean enough not to be the bottleneck:
``python -m benchmarks.mock burst|paced|slow PORT``.

Every event is an HTTP chunk of its own, as real servers send them. "burst" sends 200 at once,
"paced" 50, one every 20 ms, "slow" 30, one a second. Who asks for the usage gets it in one more.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import httptools
import msgspec
import uvloop

from benchmarks.contender import MODEL, Kind
from benchmarks.upstream import CHAT, listing

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
USAGE = {"prompt_tokens": 11, "completion_tokens": 50, "total_tokens": 61}
_ASKED = b'"include_usage":true'


class Shape(msgspec.Struct, frozen=True):
    """Of a stream: how many events beside ``[DONE]``, and the seconds between two."""

    events: int
    pace: float


SHAPES: Mapping[Kind, Shape] = MappingProxyType(
    {"burst": Shape(200, 0.0), "paced": Shape(50, 0.02), "slow": Shape(30, 1.0)}
)


class Stream(msgspec.Struct, frozen=True):
    """What a stream sends: its first frame with the head, the next ``pace`` later; and the frames
    for those who asked for the usage."""

    frames: list[bytes]
    frames_with_usage: list[bytes]
    pace: float


Answer = bytes | Stream
"""Either a whole response, or a stream."""


def words(count: int) -> list[str]:
    """The text of a stream of ``count`` events, piece by piece; the last event has none."""
    return [f" word{number:03}" for number in range(count - 1)]


def events(count: int) -> list[bytes]:
    """``count`` chat chunks and ``[DONE]``, as server-sent events."""
    pieces = [_chunk([_choice({"content": word}, None)]) for word in words(count)]
    return [*pieces, _chunk([_choice({}, "stop")]), b"data: [DONE]\n\n"]


def _choice(delta: dict[str, str], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    value = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "choices": choices,
        **more,
    }
    return b"data: %b\n\n" % msgspec.json.encode(value)


def framed(event: bytes) -> bytes:
    """An event as an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(event), event)


def stream(pieces: list[bytes], pace: float, last: Sequence[bytes] = ()) -> Stream:
    """Pieces as HTTP chunks, all at once where there is no pace; the last two go together, as
    ``[DONE]`` does with the last event. ``last`` come before it for those who ask."""
    *first, end, done = [framed(piece) for piece in pieces]
    usage = b"".join(framed(piece) for piece in last)
    plain = [*first, end + done + LAST]
    full = [*first, end + usage + done + LAST]
    if not pace:
        plain, full = [b"".join(plain)], [b"".join(full)]
    return Stream(plain, full, pace)


def json_answer(body: bytes) -> bytes:
    """A whole response."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


class Canned(asyncio.Protocol):
    """One connection. ``answers`` are by path, ``otherwise`` is sent for any other path."""

    def __init__(self, answers: Mapping[bytes, Answer], otherwise: bytes) -> None:
        self._answers = answers
        self._otherwise = otherwise
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._path = b""
        self._asked = False
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
        self._asked = False

    def on_body(self, body: bytes) -> None:
        """The parser has read a part of the body."""
        self._asked = self._asked or _ASKED in body

    def on_message_complete(self) -> None:
        """The parser has read a request."""
        answer = self._answers.get(self._path, self._otherwise)
        if isinstance(answer, Stream):
            frames = answer.frames_with_usage if self._asked else answer.frames
            self._send(frames, answer.pace, 0, self._loop.time())
        else:
            self._transport.write(answer)

    def _send(self, frames: list[bytes], pace: float, number: int, started: float) -> None:
        frame = frames[number]
        self._transport.write(HEAD + frame if number == 0 else frame)
        number += 1
        if number < len(frames):
            due = started + number * pace
            self._timer = self._loop.call_at(due, self._send, frames, pace, number, started)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if self._timer is not None:
            self._timer.cancel()


async def serve(answers: Mapping[bytes, Answer], otherwise: bytes, port: int) -> None:
    """Serves on loopback until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Canned(answers, otherwise), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


def main(kind: Kind, port: int) -> None:
    """Streams of that kind for a chat, the list of models for anything else."""
    shape = SHAPES[kind]
    chat = stream(events(shape.events), shape.pace, [_chunk([], usage=USAGE)])
    uvloop.run(serve({CHAT: chat}, json_answer(listing()), port))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))  # type: ignore[arg-type]
