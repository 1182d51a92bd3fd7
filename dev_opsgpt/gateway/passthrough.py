"""The voice platform's ``POST /chat/completions``: a route without ``/v1``, streamed by default,
whose catch-all upstream serves the models that nobody declared here.

Source: Agora's custom-LLM servers for its Conversational AI engine. The client's own key goes
along to the catch-all upstream, which checks it; a key of this gateway never does.
"""

from dev_opsgpt.gateway.auth import Keys
from dev_opsgpt.gateway.hot_path import HotPath
from dev_opsgpt.gateway.peek import peek, with_field
from dev_opsgpt.gateway.relay import relay
from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.transport.asgi import bearer, read_body
from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.server import Receive, Scope, Send

PATH = "/chat/completions"


class PassThrough:
    """Answers ``/chat/completions``. ``base_url`` is the catch-all upstream, such as
    ``https://api.openai.com/v1``, or ``None`` for none."""

    def __init__(
        self, hot_path: HotPath, client: Client, keys: Keys, base_url: str | None, max_body: int
    ) -> None:
        self._hot_path = hot_path
        self._client = client
        self._keys = keys
        self._origin = Origin(base_url) if base_url else None
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises ``ApiError`` while nothing has been sent."""
        token = bearer(scope)
        if self._origin is None or token is None or self._keys.knows(token):
            # Before the body is read: strangers shall not make us hold theirs.
            self._keys.check(scope)
        body = await read_body(scope, receive, self._max_body)
        asked = peek(body)
        if asked.stream is None:
            body = with_field(body, "stream", b"true")
        if self._origin is None or self._hot_path.known(asked.model) or self._keys.knows(token):
            key = self._keys.check(scope)
            await self._hot_path.forward("/v1" + PATH, asked.model, body, key, send)
        elif token is None:
            raise AuthenticationFailed(
                f"The model '{asked.model}' is served by an upstream that wants your own key. "
                "Send it as 'Authorization: Bearer <key>'."
            )
        else:
            await self._forward(self._origin, body, token, send)

    async def _forward(self, origin: Origin, body: bytes, token: str, send: Send) -> None:
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        response = await self._client.send(origin, origin.head("POST", PATH, headers), body)
        try:
            await relay(response, send)
        finally:
            response.close()
