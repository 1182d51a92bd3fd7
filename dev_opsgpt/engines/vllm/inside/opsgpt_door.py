"""Who may call vLLM: an ASGI middleware, named to it by ``--middleware opsgpt_door.Door``.

vLLM's own check of ``VLLM_API_KEY`` covers ``/v1`` and a few other prefixes, and says itself that
``/invocations``, which answers the same requests, is open. Here every path wants the key but
``/health``. What runs in vLLM's interpreter is without this project's packages.
"""

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = ("/health",)
_REFUSED = {
    "error": {
        "message": "This server is called by its own gateway only.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
}


class Door:
    """Lets in who shows the key of the environment as a Bearer token."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._expected = b"Bearer " + os.environ["VLLM_API_KEY"].encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers as the wrapped application does, or refuses."""
        kind = scope["type"]
        if kind not in ("http", "websocket") or scope["path"] in OPEN or self._knows(scope):
            await self._app(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = json.dumps(_REFUSED).encode()
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            headers.append((b"content-length", str(len(body)).encode()))
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _knows(self, scope: Message) -> bool:
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(shown, self._expected)
