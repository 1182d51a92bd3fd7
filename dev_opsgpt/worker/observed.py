"""A worker's part in telling what happens: its logs know the request's id, and its spans continue
the gateway's trace."""

from collections.abc import MutableMapping
from typing import Any

from dev_opsgpt.transport.asgi import header
from dev_opsgpt.transport.request_id import HEADER, accepted, current
from dev_opsgpt.transport.server import App, Receive, Scope, Send
from dev_opsgpt.transport.telemetry import Telemetry


class Observed:
    """Middleware for a worker's application. ``telemetry`` is None where no collector is
    configured. Outermost but for what cancels requests: what it wraps answers every error."""

    def __init__(self, app: App, telemetry: Telemetry | None = None) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the wrapped application does."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = current.set(accepted(header(scope, HEADER)) or "")
        try:
            if self._telemetry is None or scope["method"] != "POST":
                await self._app(scope, receive, send)
            else:
                await self._traced(self._telemetry, scope, receive, send)
        finally:
            current.reset(known)

    async def _traced(
        self, telemetry: Telemetry, scope: Scope, receive: Receive, send: Send
    ) -> None:
        path = scope["path"]
        attributes = {"http.request.method": "POST", "url.path": path}
        if request_id := current.get():
            attributes["opsgpt.request.id"] = request_id
        span = telemetry.server_span(f"POST {path}", dict(scope["headers"]), attributes)
        status: int | None = None

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            telemetry.finish(span, status)
