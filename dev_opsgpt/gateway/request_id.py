"""The ids that requests go by: their own, or new ones; told in every answer."""

import secrets
from collections.abc import MutableMapping
from itertools import count
from typing import Any

from dev_opsgpt.transport.asgi import header
from dev_opsgpt.transport.request_id import HEADER, accepted, current
from dev_opsgpt.transport.server import App, Receive, Scope, Send


def new_prefix() -> str:
    """A prefix that no other process has, now or later."""
    return f"req-{secrets.token_hex(8)}-"


class RequestIds:
    """Gives ids: ``prefix``, which tells this process from all others, and a number."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._numbers = count(1)

    def of(self, header: bytes | None) -> str:
        """The client's own id, out of the header ``x-request-id``, where that is safe to repeat;
        else a new one."""
        if header is not None and (found := accepted(header)) is not None:
            return found
        return f"{self._prefix}{next(self._numbers):x}"


class Identified:
    """Middleware for the routes that are not hot: each answer tells the id of its request, and so
    do the lines that are logged meanwhile."""

    def __init__(self, app: App, ids: RequestIds) -> None:
        self._app = app
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the wrapped application does."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._ids.of(header(scope, HEADER))

        async def told(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                line = (HEADER, request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), line]}
            await send(message)

        known = current.set(request_id)
        try:
            await self._app(scope, receive, told)
        finally:
            current.reset(known)
