"""Answers that are passed on as the bytes they come as, for engines that ask another server which
speaks OpenAI's dialect already.

The request goes on with all its fields, those that nobody here knows too, and so does the answer;
what is added is the certainty that a stream which breaks off ends with an error event.
"""

import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Protocol, runtime_checkable

import msgspec

from dev_opsgpt.protocol import errors, sse
from dev_opsgpt.protocol.errors import ApiError, InternalError, InvalidRequest, UpstreamFailed
from dev_opsgpt.transport.asgi import AnswerCut
from dev_opsgpt.transport.server import Send

log = logging.getLogger(__name__)

Fields = dict[str, msgspec.Raw]
"""A request's body: its fields, each as the JSON text it was."""

# Of an answer's headers, those that say something about its body.
PASSED = frozenset({b"content-type", b"content-encoding", b"cache-control", b"x-accel-buffering"})
# A plain answer up to this many bytes is held until it is whole.
HELD = 8 << 20
# The longest event that is waited for.
LONGEST_EVENT = 4 << 20

_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
_ERROR = re.compile(rb'^data:\s*\{\s*"error"\s*:\s*[{"]', re.MULTILINE)
_DONE = re.compile(rb"^data:\s*\[DONE\]", re.MULTILINE)


@runtime_checkable
class Relay(Protocol):
    """An engine that passes requests on. The surface has checked the model's name and admitted
    the request; everything else about it is for the other server to judge."""

    def relays(self, path: str) -> bool:
        """Whether requests to ``path`` are to be passed on."""
        ...

    async def relay(
        self, path: str, fields: Fields, send: Send, *, client_key: str | None = None
    ) -> None:
        """Asks ``path`` (such as ``/chat/completions``) and sends the answer.

        ``client_key`` is the client's own key, where the gateway hands it on. Raises ``ApiError``
        while nothing has been sent, and ``AnswerCut``.
        """
        ...


class Answer(Protocol):
    """The other server's answer while it arrives; header names are in lower case."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All headers."""
        ...

    @property
    def body(self) -> AsyncIterator[bytes]:
        """The body's pieces, as they arrive. May raise ``ApiError``."""
        ...


def fields_of(body: bytes) -> Fields:
    """The fields of a body. Raises ``InvalidRequest``."""
    try:
        return msgspec.json.decode(body, type=Fields)
    except msgspec.ValidationError:
        raise InvalidRequest("The body must be an object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"The request body is not valid JSON: {error}"
        raise InvalidRequest(problem, code="invalid_json") from None


def model_of(fields: Fields) -> str:
    """The model's name. Raises ``InvalidRequest``."""
    if "model" not in fields:
        raise InvalidRequest("'model' is missing", param="model")
    try:
        return msgspec.json.decode(fields["model"], type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest("'model' must be a string", param="model") from None


async def pass_on(answer: Answer, send: Send, mask: Callable[[str], str]) -> None:
    """Sends an answer as it comes; ``mask`` takes the secrets out of an error in its stream.
    Raises ``ApiError`` while nothing has been sent, ``AnswerCut`` after."""
    kind = next((value for name, value in answer.headers if name == b"content-type"), b"")
    if kind.startswith(b"text/event-stream"):
        await _pass_events(answer, send, mask)
    else:
        await _pass_plain(answer, send)


async def _start(answer: Answer, send: Send, *more: tuple[bytes, bytes]) -> None:
    headers = [pair for pair in answer.headers if pair[0] in PASSED]
    start = {"type": "http.response.start", "status": answer.status, "headers": [*headers, *more]}
    await send(start)


async def _pass_plain(answer: Answer, send: Send) -> None:
    held = bytearray()
    started = False
    try:
        async for piece in answer.body:
            if started:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                continue
            held += piece
            if len(held) > HELD:
                started = True
                await _start(answer, send)
                body = bytes(held)
                await send({"type": "http.response.body", "body": body, "more_body": True})
    except ApiError as error:
        if started:
            raise AnswerCut from error
        raise
    if not started:
        await _start(answer, send, (b"content-length", b"%d" % len(held)))
    await send({"type": "http.response.body", "body": b"" if started else bytes(held)})


async def _pass_events(answer: Answer, send: Send, mask: Callable[[str], str]) -> None:
    events = Events(mask)
    # The head waits for the first bytes: a server that dies before them gets its proper status.
    first = await anext(answer.body, b"")
    await _start(answer, send)
    try:
        if whole := events.feed(first):
            await send({"type": "http.response.body", "body": whole, "more_body": True})
        async for piece in answer.body:
            if whole := events.feed(piece):
                await send({"type": "http.response.body", "body": whole, "more_body": True})
        end = events.end()
    except ApiError as error:
        end = _error_event(error)
    except Exception:
        log.exception("a relayed stream failed")
        end = _error_event(InternalError("The stream failed; see the server's log."))
    await send({"type": "http.response.body", "body": end})


def _error_event(error: ApiError) -> bytes:
    return sse.event(msgspec.json.encode(errors.openai_body(error)))


class Events:
    """Cuts a stream into whole events, so that an error event never lands inside another, and
    knows whether the stream came to its proper end."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        self._mask = mask
        self._rest = b""
        self._done = self._finished = self._failed = False

    def feed(self, piece: bytes) -> bytes:
        """The events that ``piece`` completes. Raises ``UpstreamFailed`` for one without end."""
        data = self._rest + piece if self._rest else piece
        end = sse.whole_events(data)
        whole, self._rest = data[:end], data[end:]
        if len(self._rest) > LONGEST_EVENT:
            raise UpstreamFailed("The stream holds an event that is too long.")
        return self._seen(whole)

    def end(self) -> bytes:
        """What is left to send at the end of the stream, ``[DONE]`` included where the other
        server forgot it. Raises ``UpstreamFailed`` where the answer was not complete."""
        rest, self._rest = self._rest, b""
        rest = self._seen(rest + b"\n\n" if rest else rest)
        if self._done or self._failed:
            return rest
        if not self._finished:
            raise UpstreamFailed("The model's stream ended before its answer did.")
        return rest + sse.DONE

    def _seen(self, data: bytes) -> bytes:
        self._done = self._done or _DONE.search(data) is not None
        self._finished = self._finished or _FINISH.search(data) is not None
        if _ERROR.search(data) is None:
            return data
        self._failed = True
        return self._mask(data.decode(errors="replace")).encode()
