"""Sends the answer that a generation makes, whole or as a stream of events."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from dev_opsgpt.protocol import errors, sse
from dev_opsgpt.protocol.errors import ApiError, InternalError
from dev_opsgpt.protocol.steps import Delta
from dev_opsgpt.transport.asgi import send_json
from dev_opsgpt.transport.server import Send

log = logging.getLogger(__name__)

STREAM_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", sse.CONTENT_TYPE.encode()),
        (b"cache-control", b"no-cache"),
        # nginx in front of us would otherwise hold a stream back until it has a bufferful.
        (b"x-accel-buffering", b"no"),
    ],
}


class Answer(Protocol):
    """What puts an answer together from steps: ``ChatAnswer`` or ``CompletionAnswer``."""

    def add(self, index: int, delta: Delta) -> None:
        """Takes a step."""

    def chunks(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        """Takes a step and gives its chunks."""

    def events(self, index: int, delta: Delta) -> bytes:
        """Takes a step and gives its chunks as events; none for a step with nothing to show."""

    def last_chunk(self) -> dict[str, Any] | None:
        """The usage chunk, if wanted."""

    def whole(self) -> dict[str, Any]:
        """The plain answer."""


async def answer_with(
    send: Send,
    answer: Answer,
    steps: AsyncGenerator[tuple[int, Delta], None],
    *,
    stream: bool,
) -> None:
    """Sends the answer that the steps make.

    The head of a stream is held back until the first step is there, so that a request the engine
    refuses gets its proper status. A fault after that ends the stream with an error event, and
    without ``[DONE]``.
    """
    async with aclosing(steps):
        if not stream:
            async for index, delta in steps:
                answer.add(index, delta)
            await send_json(send, 200, answer.whole())
            return
        first = await anext(steps, None)
        await send(STREAM_HEAD)
        try:
            if first is not None:
                await _send_events(send, answer.events(*first))
            async for index, delta in steps:
                await _send_events(send, answer.events(index, delta))
            last = answer.last_chunk()
            end = sse.DONE if last is None else sse.event(msgspec.json.encode(last)) + sse.DONE
        except ApiError as error:
            end = sse.event(msgspec.json.encode(errors.openai_body(error)))
        except Exception:
            log.exception("a stream failed")
            body = errors.openai_body(InternalError("The stream failed; see the server's log."))
            end = sse.event(msgspec.json.encode(body))
        await send({"type": "http.response.body", "body": end})


async def _send_events(send: Send, body: bytes) -> None:
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})
