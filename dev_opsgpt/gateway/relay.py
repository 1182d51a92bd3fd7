"""An upstream's answer on its way to the client: bytes as they come, ends as they should be."""

import msgspec

from dev_opsgpt.protocol import errors, sse
from dev_opsgpt.protocol.errors import ApiError, UpstreamFailed
from dev_opsgpt.transport.asgi import AnswerCut
from dev_opsgpt.transport.response import Response
from dev_opsgpt.transport.server import Send

# Of an upstream's headers, those that say something about the answer; the others are between
# the upstream and us.
PASSED = frozenset(
    {b"content-type", b"content-encoding", b"cache-control", b"retry-after", b"x-accel-buffering"}
)
# A plain answer up to this many bytes is held until it is whole, so that another replica can
# still be asked when this one dies over it.
HELD = 8 << 20
# An event of this many bytes is passed on before its end has come.
LONGEST_EVENT = 1 << 20


def is_stream(response: Response) -> bool:
    """Whether the answer is a stream of events."""
    return (response.header(b"content-type") or b"").startswith(b"text/event-stream")


async def relay(response: Response, send: Send) -> None:
    """Passes the answer on. Raises ``ApiError`` only while nothing has been sent."""
    if is_stream(response):
        await _relay_events(response, send)
    else:
        await _relay_plain(response, send)


def _head(response: Response) -> list[tuple[bytes, bytes]]:
    return [pair for pair in response.headers if pair[0] in PASSED]


async def _relay_plain(response: Response, send: Send) -> None:
    parts = []
    size = 0
    while size <= HELD and (data := await response.next()):
        parts.append(data)
        size += len(data)
    headers = _head(response)
    whole = response.complete and size <= HELD
    if whole:
        headers.append((b"content-length", b"%d" % size))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(parts), "more_body": not whole})
    if not whole:
        await _relay_rest(response, send)


async def _relay_rest(response: Response, send: Send) -> None:
    """The rest of an answer that is too large to hold."""
    try:
        async for data in response:
            await send({"type": "http.response.body", "body": data, "more_body": True})
    except ApiError as error:
        raise AnswerCut from error
    await send({"type": "http.response.body", "body": b""})


async def _relay_events(response: Response, send: Send) -> None:
    """Only whole events are passed on, so that the error event that ends a broken stream never
    lands in the middle of another."""
    data = await response.next()
    headers = _head(response)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    rest = b""
    try:
        while data:
            data = rest + data if rest else data
            end = sse.whole_events(data)
            if len(data) - end > LONGEST_EVENT:
                end = len(data)
            rest = data[end:]
            if end:
                part = data[:end] if rest else data
                # Together with the answer's end, where that has come too: one write less.
                ended = response.complete and not rest
                await send({"type": "http.response.body", "body": part, "more_body": not ended})
                if ended:
                    return
            data = await response.next()
        last = rest
    except ApiError as error:
        last = sse.event(msgspec.json.encode(errors.openai_body(broken(error))))
    await send({"type": "http.response.body", "body": last})


def broken(error: ApiError) -> ApiError:
    """The error a client is told when an upstream fails in the middle of its answer."""
    message = f"The model's worker failed in the middle of the answer. {error.message}"
    return UpstreamFailed(message, code=error.code)
