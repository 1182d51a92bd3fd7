"""The hot path: check the key, peek at the body, choose a replica, forward the bytes.

No validation and no re-serialising here: the worker validates. While nothing has been sent to the
client, a request that its replica could not take goes to another one.
"""

from collections.abc import Awaitable, Callable

from dev_opsgpt.gateway.auth import Keys
from dev_opsgpt.gateway.fastchat_worker import FastChatWorkers
from dev_opsgpt.gateway.peek import peek
from dev_opsgpt.gateway.relay import relay
from dev_opsgpt.gateway.upstreams import Upstreams
from dev_opsgpt.protocol.errors import (
    ApiError,
    ModelNotFound,
    Overloaded,
    Unavailable,
    UpstreamFailed,
)
from dev_opsgpt.routing.dispatch import Dispatcher
from dev_opsgpt.routing.fleet import Fleet, Replica
from dev_opsgpt.transport.asgi import read_body
from dev_opsgpt.transport.errors import ConnectFailed, ConnectionBroken, ReadTimeout
from dev_opsgpt.transport.response import Response
from dev_opsgpt.transport.server import Receive, Scope, Send

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
# Answers that say "not here, not now": another replica may do better. 404 is a model that has
# just been released.
ELSEWHERE = frozenset({404, 429, 502, 503, 504})


class HotPath:
    """Answers the routes that carry generations.

    ``retries`` is how many further replicas are tried; ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        dispatcher: Dispatcher,
        upstreams: Upstreams,
        fastchat: FastChatWorkers,
        keys: Keys,
        *,
        max_body: int,
        retries: int,
        clock: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._upstreams = upstreams
        self._fastchat = fastchat
        self._keys = keys
        self._max_body = max_body
        self._retries = retries
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises ``ApiError`` while nothing has been sent."""
        own_key = self._keys.check(scope)
        body = await read_body(scope, receive, self._max_body)
        await self.forward(scope["path"], peek(body).model, body, own_key, send)

    def known(self, model: str) -> bool:
        """Whether somebody serves the model, or should."""
        now = self._clock()
        return bool(self._fleet.candidates(model, now)) or self._fleet.expected(model, now)

    async def forward(
        self, path: str, model: str, body: bytes, client_key: str | None, send: Send
    ) -> None:
        """Sends a request to a replica of its model, and the answer to the client."""
        tried: list[Replica] = []
        while True:
            replica = self._choose(model, tried)
            tried.append(replica)
            replica.in_flight += 1
            try:
                if await self._try(tried, path, model, body, client_key, send):
                    return
            finally:
                replica.in_flight -= 1

    async def _try(
        self,
        tried: list[Replica],
        path: str,
        model: str,
        body: bytes,
        client_key: str | None,
        send: Send,
    ) -> bool:
        """One attempt, with the last of ``tried``; false where another replica should be asked."""
        replica = tried[-1]
        if replica.row.kind == "fastchat":
            answer = self._fastchat.answer(replica.row, path, body, send)
            return await self._guard(tried, model, answer)
        response: Response | None = None
        try:
            response = await self._upstreams.send(replica, path, body, model, client_key)
            if response.status in ELSEWHERE and self._others(model, tried):
                return False
            if response.status in (401, 403):
                raise UpstreamFailed(
                    "The model's server refused the gateway's credential.",
                    code="upstream_auth_failed",
                )
            await relay(response, send)
        except (ConnectFailed, ConnectionBroken, ReadTimeout) as error:
            self._note(replica, error)
            if isinstance(error, ReadTimeout) or not self._others(model, tried):
                raise
            return False
        finally:
            if response is not None:
                response.close()
        return True

    async def _guard(self, tried: list[Replica], model: str, answer: Awaitable[None]) -> bool:
        try:
            await answer
        except (ConnectFailed, ConnectionBroken, Overloaded, Unavailable) as error:
            self._note(tried[-1], error)
            if not self._others(model, tried):
                raise
            return False
        return True

    def _choose(self, model: str, tried: list[Replica]) -> Replica:
        now = self._clock()
        replica = self._dispatcher.choose(model, self._fleet.candidates(model, now, tried))
        if replica is not None:
            return replica
        if self._fleet.candidates(model, now) or self._fleet.expected(model, now):
            message = f"No worker can serve the model '{model}' now; try again shortly."
            raise Unavailable(message, code="model_unavailable", retry_after=2)
        raise ModelNotFound(f"The model '{model}' does not exist.", param="model")

    def _others(self, model: str, tried: list[Replica]) -> bool:
        """Whether one more replica may be asked, and there is one."""
        more = len(tried) <= self._retries
        return more and bool(self._fleet.candidates(model, self._clock(), tried))

    def _note(self, replica: Replica, error: ApiError) -> None:
        """A replica that cannot be reached is passed over for a while; one that broke off, or
        was slow, may be well for others."""
        if isinstance(error, ConnectFailed):
            self._fleet.down(replica, self._clock())
