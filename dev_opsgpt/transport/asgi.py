"""The few things our ASGI applications share: bodies in, answers out, clients that leave."""

import asyncio
import base64
import binascii
import contextlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from dev_opsgpt.protocol import errors
from dev_opsgpt.protocol.errors import ApiError, RequestTooLarge
from dev_opsgpt.transport.connection import ON_DISCONNECT
from dev_opsgpt.transport.refusing import LINGER
from dev_opsgpt.transport.server import App, Receive, Scope, Send

JSON = "application/json"
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class ClientGone(Exception):
    """The client hung up before its request had arrived."""


class AnswerCut(Exception):
    """The rest of an answer that was begun cannot be had: all that is left is to close the
    connection, so that the client sees that it is cut."""


class CancelOnDisconnect:
    """Middleware: cancels a request's task the moment its client hangs up, so that whatever the
    task waits for, a worker, an engine, a provider, is let go at once."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the wrapped application does."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        task = asyncio.current_task()
        gone = False

        def hang_up() -> None:
            nonlocal gone
            gone = True
            if task is not None:
                task.cancel()

        scope[ON_DISCONNECT] = hang_up
        try:
            await self._app(scope, receive, send)
        except ClientGone:
            return
        except asyncio.CancelledError:
            if not gone:
                raise
            if task is not None:
                task.uncancel()
        finally:
            # A connection lives longer than its request; a late hang-up must find nobody.
            scope.pop(ON_DISCONNECT, None)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a request header, by its lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def bearer(scope: Scope) -> str | None:
    """The token of a request's Authorization header, if there is one."""
    return token_of(header(scope, b"authorization"))


def token_of(authorization: bytes | None) -> str | None:
    """The token of ``Bearer <token>``.

    The password of ``Basic`` counts as one too: FastChat's parts have no setting for a token, yet
    send the userinfo of the addresses they are given.
    """
    if authorization is None:
        return None
    kind, _, rest = authorization.partition(b" ")
    rest = rest.strip()
    if kind.lower() == b"basic":
        try:
            rest = base64.b64decode(rest, validate=True).partition(b":")[2]
        except binascii.Error:
            return None
        if _CONTROL.search(rest):
            # No header holds these, and tokens go on in headers.
            return None
    elif kind.lower() != b"bearer":
        return None
    return rest.decode("latin-1") or None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises ``RequestTooLarge`` past ``limit`` bytes, ``ClientGone``."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise RequestTooLarge(f"The request body is larger than {limit} bytes.")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise RequestTooLarge(f"The request body is larger than {limit} bytes.")
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def send_body(
    send: Send,
    status: int,
    body: bytes,
    *,
    content_type: str = JSON,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Sends a whole answer."""
    found = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(body)),
        *((name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": found})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, value: Any) -> None:
    """Sends a value as JSON."""
    await send_body(send, status, msgspec.json.encode(value))


async def send_error(send: Send, error: ApiError) -> None:
    """Sends an error in OpenAI's shape."""
    body = msgspec.json.encode(errors.openai_body(error))
    await send_body(send, error.status, body, headers=errors.headers(error))


async def refuse_body(receive: Receive, send: Send, error: RequestTooLarge) -> None:
    """Sends the error for a body that was not read to its end, and ends the connection.

    A while of what still comes is read and dropped first: to close on a client that is sending
    would destroy the answer before it is read.
    """
    body = msgspec.json.encode(errors.openai_body(error))
    head = [
        (b"content-type", JSON.encode()),
        # With its length the answer is whole to the client while we still listen.
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": head})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b""})
