"""The voice platform's ``POST /chat/completions``: a route without ``/v1``, streamed by default,
whose catch-all upstream serves the models that nobody declared here.

Source: Agora's custom-LLM servers for its Conversational AI engine. The client's own key goes
along to the catch-all upstream, which checks it; a key of this gateway never does.
"""

from typing import Any

from dev_opsgpt.gateway.auth import Caller
from dev_opsgpt.gateway.hot_path import HotPath, Visit
from dev_opsgpt.gateway.peek import Peek, peek, with_field
from dev_opsgpt.gateway.relay import StreamBroken, relay
from dev_opsgpt.gateway.request import Request
from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.transport.asgi import token_of
from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.exchange import Exchange

PATH = "/chat/completions"
_STRANGER = Caller()


class PassThrough(HotPath):
    """Answers ``/chat/completions``. ``catch_all`` gives the base URL of the catch-all upstream,
    such as ``https://api.openai.com/v1``, or None for none; the rest is as of ``HotPath``."""

    def __init__(self, client: Client, base_url: str | None, **hot_path: Any) -> None:
        super().__init__(**hot_path)
        self._client = client
        self.catch_all(base_url)

    def catch_all(self, base_url: str | None) -> None:
        """Takes another catch-all upstream."""
        self._origin = Origin(base_url) if base_url else None

    def admit(self, exchange: Exchange) -> Caller:
        """Strangers with a key of their own are let in where there is an upstream to check it."""
        token = token_of(exchange.headers.get(b"authorization"))
        if self._origin is None or token is None or self._keys.knows(token):
            return super().admit(exchange)
        return _STRANGER

    def read(self, exchange: Exchange) -> tuple[Peek, bytes]:
        """Streamed unless the client says otherwise. Raises ``AuthenticationFailed`` for a
        stranger who asks for a model of ours."""
        asked, body = peek(exchange.body), exchange.body
        if asked.stream is None:
            asked.stream = True
            body = with_field(body, "stream", b"true")
        visit: Visit = exchange.context
        if visit.caller is _STRANGER and self._forwarder.known(asked.model):
            visit.caller = super().admit(exchange)
        return asked, body

    async def serve(self, request: Request, route: Route) -> None:
        """By our own replicas, or by the catch-all upstream."""
        token = token_of(request.exchange.headers.get(b"authorization"))
        if self._origin is None or self._forwarder.known(request.model) or self._keys.knows(token):
            await super().serve(request, route)
        elif token is None:
            raise AuthenticationFailed(
                f"The model '{request.model}' is served by an upstream that wants your own key. "
                "Send it as 'Authorization: Bearer <key>'."
            )
        else:
            await self._forward(self._origin, request, token)

    async def _forward(self, origin: Origin, request: Request, token: str) -> None:
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        head = origin.head("POST", PATH, headers) + request.lines_for(origin.authority.decode())
        response = await self._client.send(origin, head, request.body)
        request.record.served = request.model
        try:
            await relay(request, response, await response.next())
        except StreamBroken:
            return
        finally:
            response.close()
