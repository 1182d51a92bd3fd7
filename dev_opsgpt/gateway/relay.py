"""An upstream's answer on its way to the client: bytes as they come, ends as they should be, and
what they say of tokens written down."""

import asyncio
import re
from collections.abc import MutableMapping
from typing import Any

import msgspec

from dev_opsgpt.gateway.request import Request
from dev_opsgpt.gateway.stream_usage import Tokens, usage_of
from dev_opsgpt.protocol import errors, sse
from dev_opsgpt.protocol.errors import ApiError, InvalidRequest, UpstreamFailed
from dev_opsgpt.transport.response import Response

# Of an upstream's headers, those that say something about the answer; the others are between
# the upstream and us.
PASSED = frozenset(
    {b"content-type", b"content-encoding", b"cache-control", b"retry-after", b"x-accel-buffering"}
)
EVENTS = b"text/event-stream"
# A plain answer up to this many bytes is held until it is whole.
HELD = 8 << 20
# An event of this many bytes is passed on before its end has come.
LONGEST_EVENT = 1 << 20
_ERROR = re.compile(rb'^data:\s*(\{\s*"error"\s*:.*)$', re.MULTILINE)
# Characters of an error's code that are kept: it stands in metrics and records.
LONGEST_CODE = 100
# Bytes of a piece that is taken to be one event.
SHORT = 512
# Bytes at the end of a stream in which its end is looked for.
DONE_WITHIN = 64
# Bytes of a piece in which events are counted one by one.
COUNTED = 1024


class Refused(ApiError):
    """An upstream's answer that says "not here, not now". It is passed on as it came if nobody
    else can do better."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        super().__init__("The model's worker refused the request.", code=_code_of(body))
        self.status = status  # type: ignore[misc]
        self.head = head
        self.body = body

    @classmethod
    async def of(cls, response: Response) -> "Refused":
        """Reads such an answer. Raises ``ApiError`` where it does not come."""
        return cls(response.status, head_of(response), await response.read(LONGEST_EVENT))


def head_of(response: Response) -> bytes:
    """The header lines of an answer that are passed on."""
    headers = response.headers
    return b"".join([b"%b: %b\r\n" % (n, headers[n]) for n in headers if n in PASSED])


async def relay(request: Request, response: Response, first: bytes) -> None:
    """Passes an answer on to its end. Its head and its ``first`` bytes have come: until then
    another replica could be asked. Raises ``ApiError`` only while nothing has been sent,
    ``StreamBroken`` after."""
    if relay_whole(request, response, first):
        return
    if response.headers.get(b"content-type", b"").startswith(EVENTS):
        await _Relay(request, response).stream(first)
    else:
        await _Relay(request, response).plain(first)


def relay_whole(request: Request, response: Response, first: bytes) -> bool:
    """Passes an answer on where that takes no waiting: a plain one that has come as a whole, as
    most do. False for any other."""
    request.record.status = response.status
    if not response.finished or response.headers.get(b"content-type", b"").startswith(EVENTS):
        return False
    _answer(request, response, first)
    return True


def _answer(request: Request, response: Response, body: bytes) -> None:
    """Sends a whole answer."""
    if response.status < 400:
        tokens = usage_of(body)
        if tokens is not None:
            note_tokens(request, tokens)
    else:
        request.record.error = _code_of(body)
    request.exchange.answer(response.status, head_of(response), body)


class _Relay:
    """An answer that is still on its way."""

    __slots__ = ("_last", "_request", "_response", "_rest", "_write")

    def __init__(self, request: Request, response: Response) -> None:
        self._request = request
        self._response = response
        self._write = request.exchange.write
        self._rest = b""
        # What was passed on last: where a server says that its stream has failed, it does so there.
        self._last = b""

    async def plain(self, first: bytes) -> None:
        """An answer of one piece: held until it is whole, so that another replica can still be
        asked when this one dies over it."""
        response = self._response
        parts = [first]
        size = len(first)
        while size <= HELD and (data := await response.next()):
            parts.append(data)
            size += len(data)
        if size <= HELD:
            _answer(self._request, response, b"".join(parts))
        else:
            await self._large(parts)

    async def _large(self, parts: list[bytes]) -> None:
        """An answer that is too large to hold."""
        exchange, response = self._request.exchange, self._response
        exchange.begin(response.status, head_of(response), b"".join(parts))
        parts.clear()
        self._regulate()
        try:
            await response.pipe(exchange.write)
        except ApiError as error:
            self._request.record.error = error.code
            exchange.fail(error)
            raise StreamBroken(error) from error
        exchange.end()

    async def stream(self, first: bytes) -> None:
        """Only whole events are passed on, so that the error event that ends a broken stream never
        lands in the middle of another. Until there is one, another replica can be asked."""
        request, response = self._request, self._response
        exchange = request.exchange
        data = self._events(first)
        while not data and not response.finished:
            data = self._events(await response.next())
        self._last = data
        exchange.begin(response.status, head_of(response), data)
        if response.finished:
            self._end(b"")
            self._check()
            return
        self._regulate()
        try:
            await response.pipe(self._feed)
        except ApiError as error:
            self._rest = b""
            self._end(error_event(request, error))
            raise StreamBroken(error) from error
        if not exchange.response_complete:
            self._end(b"")
        self._check()

    def _check(self) -> None:
        """Raises ``StreamBroken`` where the server itself has said that its stream failed."""
        error = told_error(self._last)
        if error is not None:
            self._request.record.error = error.code
            raise StreamBroken(error)

    def _regulate(self) -> None:
        """Reads from the upstream no faster than the client takes."""
        exchange, response = self._request.exchange, self._response
        exchange.on_pause, exchange.on_resume = response.pause, response.resume
        if exchange.paused:
            response.pause()

    def _feed(self, data: bytes) -> None:
        if (
            len(data) <= SHORT
            and data.endswith(b"\n\n")
            and not self._rest
            and b'"usage"' not in data
            and not self._response.complete
        ):
            # One event, as a model sends most of them: it goes straight on.
            self._request.events += 1
            self._last = data
            self._write(data)
            return
        data = self._events(data)
        if self._response.complete and not self._rest:
            # Together with the answer's end, where that has come too: one write less.
            self._end(data)
        elif data:
            self._last = data
            self._write(data)

    def _events(self, data: bytes) -> bytes:
        """What of the data can be passed on; the rest, an event without its end, is kept."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not data.endswith(b"\n\n"):
            end = sse.whole_events(data)
            if len(data) - end <= LONGEST_EVENT:
                data, self._rest = data[:end], data[end:]
        request = self._request
        request.events += _count(data)
        return request.usage.feed(data) if request.usage is not None else data

    def _end(self, data: bytes) -> None:
        request = self._request
        if self._rest:
            # An event without its end, which is all that there will be of it.
            rest, self._rest = self._rest, b""
            data = (request.usage.feed(rest) if request.usage is not None else rest) + data
        if data:
            self._last = data
        finish_stream(request)
        request.exchange.end(data)


def _count(data: bytes) -> int:
    """How many events there are; of many, about how many."""
    begin = data if len(data) <= COUNTED else data[:COUNTED]
    found = begin.count(b"\n\n") or begin.count(b"\r\n\r\n")
    return found if begin is data else found * len(data) // COUNTED


class StreamBroken(Exception):
    """An upstream failed in the middle of a stream; the client has been told."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class Sender:
    """An ASGI ``send`` that answers an exchange: for answers that the gateway puts together
    itself. A ``timeout`` that waits for the first byte ends with it."""

    def __init__(self, request: Request, timeout: asyncio.Timeout | None = None) -> None:
        self._request = request
        self._timeout = timeout
        self._last = b""
        self._head: tuple[int, bytes] | None = None
        self._begun = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Takes one message of ASGI's."""
        request = self._request
        exchange = request.exchange
        if message["type"] == "http.response.start":
            pairs = [p for p in message["headers"] if p[0] != b"content-length"]
            self._head = message["status"], b"".join([b"%b: %b\r\n" % pair for pair in pairs])
            request.record.status = message["status"]
            return
        data = message.get("body", b"")
        if self._head is None:
            return
        self._last = data or self._last
        if self._timeout is not None:
            self._timeout.reschedule(None)
            self._timeout = None
        if not self._begun and not message.get("more_body"):
            note_tokens(request, usage_of(data))
            exchange.answer(*self._head, data)
            return
        request.events += _count(data)
        data = request.usage.feed(data) if request.usage is not None else data
        if not self._begun:
            self._begun = True
            request.record.first_token = request.elapsed()
            exchange.begin(*self._head, data)
        elif data and message.get("more_body"):
            exchange.write(data)
        if not message.get("more_body"):
            finish_stream(request)
            exchange.end(data)
        await exchange.drained()

    def check(self) -> None:
        """Raises ``StreamBroken`` where the answer ended with an error event."""
        error = told_error(self._last) if self._begun else None
        if error is not None:
            self._request.record.error = error.code
            raise StreamBroken(error)


def tell_waiting(request: Request, error: ApiError) -> None:
    """Ends the stream of a client that was told to wait, and then could not be served."""
    request.record.error = error.code
    if isinstance(error, Refused):
        request.exchange.answer(error.status, error.head, error.body)
    else:
        request.exchange.fail(error)


def finish_stream(request: Request) -> None:
    """Writes down what a stream has told of itself."""
    record = request.record
    if record.first_token is not None:
        record.generating = request.elapsed() - record.first_token
    if request.usage is not None:
        note_tokens(request, request.usage.tokens)


def note_tokens(request: Request, tokens: Tokens | None) -> None:
    """Writes down the tokens of an answer."""
    if tokens is not None:
        record = request.record
        record.prompt_tokens = tokens.prompt
        record.completion_tokens = tokens.completion
        record.cached_tokens = tokens.cached


def error_event(request: Request, error: ApiError) -> bytes:
    """The event that ends a stream which cannot go on; the record keeps its code."""
    told = broken(error)
    request.record.error = told.code
    return sse.event(msgspec.json.encode(errors.openai_body(told)))


def told_error(last: bytes) -> ApiError | None:
    """The error that the ``last`` events of a stream tell of, as a fault of their server's unless
    they say that it is the client's; None where they tell of none."""
    if b"[DONE]" in last[-DONE_WITHIN:]:
        return None
    told = _ERROR.search(last)
    if told is None:
        return None
    try:
        error = msgspec.json.decode(told[1], type=_ErrorBody).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        error = _ErrorObject()
    kind = InvalidRequest if error.type == InvalidRequest.type else UpstreamFailed
    code = str(error.code)[:LONGEST_CODE] if error.code is not None else None
    return kind("The model's worker failed in the middle of the answer.", code=code)


def broken(error: ApiError) -> ApiError:
    """The error a client is told when an upstream fails in the middle of its answer."""
    message = f"The model's worker failed in the middle of the answer. {error.message}"
    return UpstreamFailed(message, code=error.code)


class _ErrorObject(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorObject


def _code_of(body: bytes) -> str | None:
    """The code of an error body; a made-up one where it has none."""
    try:
        code = msgspec.json.decode(body, type=_ErrorBody).error.code
    except (msgspec.MsgspecError, UnicodeDecodeError):
        code = None
    return str(code)[:LONGEST_CODE] if code is not None else "upstream_error"
