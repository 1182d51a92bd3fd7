"""An exchange whose client has been told to wait: a stream that has begun with comments, before
anybody has answered."""

from collections.abc import Callable

import msgspec

from dev_opsgpt.protocol import errors, sse
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.transport.exchange import Exchange

_HEAD = b"content-type: %b\r\ncache-control: no-cache\r\n" % sse.CONTENT_TYPE.encode()


class Opened:
    """Stands where the exchange was, for whoever answers: its head with status 200 has been sent,
    so what follows are events, errors too. As long as there are only comments, it counts as not
    ``started``: somebody else can still be asked."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.started = False
        exchange.begin(200, _HEAD)

    def comment(self, text: str) -> None:
        """Sends a comment, which clients skip."""
        line = " ".join(text.split())
        self._exchange.write(f": {line}\n\n".encode())

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The request's."""
        return self._exchange.headers

    @property
    def arrived(self) -> float:
        """When the request came."""
        return self._exchange.arrived

    @property
    def path(self) -> str:
        """The request's."""
        return self._exchange.path

    @property
    def paused(self) -> bool:
        """Whether the client takes less than it is given."""
        return self._exchange.paused

    @property
    def disconnected(self) -> bool:
        """Whether the client is gone."""
        return self._exchange.disconnected

    @property
    def response_complete(self) -> bool:
        """Whether the answer has been sent."""
        return self._exchange.response_complete

    @property
    def on_pause(self) -> Callable[[], None] | None:
        """Called when the client takes less than it is given."""
        return self._exchange.on_pause

    @on_pause.setter
    def on_pause(self, call: Callable[[], None] | None) -> None:
        self._exchange.on_pause = call

    @property
    def on_resume(self) -> Callable[[], None] | None:
        """Called when the client takes more again."""
        return self._exchange.on_resume

    @on_resume.setter
    def on_resume(self, call: Callable[[], None] | None) -> None:
        self._exchange.on_resume = call

    def begin(self, status: int, headers: bytes, data: bytes = b"") -> None:
        """The first bytes of a stream."""
        self.started = True
        if data:
            self._exchange.write(data)

    def write(self, data: bytes) -> None:
        """More of it."""
        self._exchange.write(data)

    def end(self, data: bytes = b"") -> None:
        """The last bytes."""
        self._exchange.end(data)

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        """A whole answer, or an error, as one event."""
        self.started = True
        try:
            line = msgspec.json.encode(msgspec.json.decode(body))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            line = msgspec.json.encode({"error": {"message": f"The server answered {status}."}})
        self._exchange.end(sse.event(line) + (sse.DONE if status < 400 else b""))

    def fail(self, error: ApiError) -> None:
        """The error as an event where nothing but comments has been sent; else the answer is
        cut."""
        if self.response_complete or self.disconnected:
            return
        if self.started:
            self._exchange.fail(error)
        else:
            self.error(error)

    def error(self, error: ApiError) -> None:
        """An error event; nothing follows it."""
        self.started = True
        body = msgspec.json.encode(errors.openai_body(error))
        self._exchange.end(sse.event(body))

    async def drained(self) -> None:
        """Returns when the client takes more."""
        await self._exchange.drained()
