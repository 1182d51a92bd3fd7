"""What is fuzzed, and how to talk to it byte by byte."""

import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import httptools

from tests.support.stack import SECRET

KEY = "sk-fuzz"
ADMIN = "sk-fuzz-admin"
# Seconds. The server answers or closes in less, whatever it is sent.
PATIENCE = 30.0
# Seconds without a byte after which nothing more is awaited on a connection that stays open.
QUIET = 0.05


@dataclass(frozen=True)
class Target:
    """A running stack: the ports of its parts, and the texts that its engine was asked."""

    gateway: int
    worker: int
    controller: int
    asked: list[str]

    @property
    def url(self) -> str:
        """The gateway's."""
        return f"http://127.0.0.1:{self.gateway}"


@dataclass
class Answer:
    """One answer; ``whole`` when all of it has come."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False

    def error(self) -> dict[str, Any]:
        """The error in it, which must be in OpenAI's shape."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        assert set(found) == {"message", "type", "param", "code"}
        return found


class Answers:
    """All answers of one connection, and whether the server has closed it."""

    def __init__(self) -> None:
        self.all: list[Answer] = []
        self.closed = False
        self._parser = httptools.HttpResponseParser(self)

    @property
    def statuses(self) -> list[int]:
        """Of the answers but interim ones."""
        return [answer.status for answer in self.all if answer.status >= 200]

    @property
    def whole(self) -> int:
        """How many answers but interim ones have come in full."""
        return sum(answer.whole for answer in self.all if answer.status >= 200)

    def feed(self, data: bytes) -> None:
        """Takes what the server sent; that must be HTTP."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.all.append(Answer())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.all[-1].headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.all[-1].status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.all[-1].body += body

    def on_message_complete(self) -> None:
        self.all[-1].whole = True


def exchange(
    port: int,
    *pieces: bytes,
    answers: int | None = None,
    more: bool = False,
    patience: float = PATIENCE,
) -> Answers:
    """Sends the pieces, one packet each, and reads until the server closes, or until so many
    ``answers`` have come, and then a little longer if there could be ``more``, or for ``patience``
    seconds."""
    found = Answers()
    until = time.monotonic() + patience
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                connection.sendall(piece)
                if len(pieces) > 1:
                    time.sleep(0.001)
            while (left := until - time.monotonic()) > 0:
                over = answers is not None and found.whole >= answers
                if over and not more:
                    break
                connection.settimeout(QUIET if over else left)
                data = connection.recv(65_536)
                if not data:
                    found.closed = True
                    break
                found.feed(data)
        except TimeoutError:
            pass
        except ConnectionError:
            found.closed = True
    return found


@dataclass(frozen=True)
class Front:
    """A route that is asked: whose port, its path, its credential, a body that it likes."""

    part: str
    path: bytes
    token: str
    body: bytes = b"{}"

    def port(self, target: Target) -> int:
        """Its port."""
        found: int = getattr(target, self.part)
        return found

    def post(
        self,
        *lines: bytes,
        body: bytes | None = None,
        length: bool = True,
        version: bytes = b"HTTP/1.1",
        auth: bool = True,
    ) -> bytes:
        """A POST with further header lines, as bytes."""
        body = self.body if body is None else body
        head = [
            b"POST %b %b" % (self.path, version),
            b"Host: a",
            b"Content-Type: application/json",
            *lines,
        ]
        if auth:
            head.append(b"Authorization: Bearer %b" % self.token.encode())
        if length:
            head.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(head) + b"\r\n\r\n" + body

    def chunked(self, *lines: bytes, body: bytes | None = None, **more: Any) -> bytes:
        """A POST in chunks; ``body`` is as it goes over the wire."""
        body = chunks(self.body) if body is None else body
        lines = (b"Transfer-Encoding: chunked", *lines)
        return self.post(*lines, body=body, length=False, **more)


def chat(text: str, **fields: Any) -> bytes:
    """The body of a chat request."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "echo", "messages": messages} | fields).encode()


def chunks(body: bytes) -> bytes:
    """A body as one chunk and the last one."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


HOT = Front("gateway", b"/v1/chat/completions", KEY, chat("front"))
FRONTS = {
    "hot": HOT,
    "voice": Front("gateway", b"/chat/completions", KEY, chat("front", stream=False)),
    "page": Front(
        "gateway",
        b"/api/v1/token_check",
        KEY,
        b'{"prompts":[{"model":"echo","prompt":"a","max_tokens":1}]}',
    ),
    "admin": Front("gateway", b"/admin/keys", ADMIN),
    "worker": Front("worker", b"/v1/chat/completions", SECRET, chat("front")),
    "controller": Front("controller", b"/get_worker_address", SECRET, b'{"model":"echo"}'),
}
