"""The worker's part inside vLLM's server: an ASGI middleware before everything else there.

Gateways come here without the worker in between, so what a worker does at its surface is done here:
callers show the key, requests are checked as for every engine, and errors have OpenAI's shape.

vLLM's own check of its key covers ``/v1`` and a few other prefixes, and says itself that
``/invocations``, which answers the same requests, is open. Here every path wants the key but
``/health``. This runs in vLLM's interpreter: it knows ``protocol`` and nothing that needs more.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

from dev_opsgpt.engines.vllm.refusals import PROMPTS, reshaped
from dev_opsgpt.protocol.errors import (
    ApiError,
    AuthenticationFailed,
    InternalError,
    InvalidRequest,
    headers,
    openai_body,
)
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.parse import parse

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health"})
CHECKED: Mapping[str, type[ChatRequest | CompletionRequest | EmbeddingRequest]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
}
_ERROR_EVENT = b'data: {"error"'


class Door:
    """Lets in who shows ``key`` as a Bearer token, with a request that is one."""

    def __init__(self, app: App, key: str) -> None:
        self._app = app
        self._expected = b"Bearer " + key.encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers as the wrapped application does, or refuses."""
        kind = scope["type"]
        if kind == "websocket" and not self._knows(scope):
            await send({"type": "websocket.close", "code": 1008})
        elif kind != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
        else:
            try:
                if not self._knows(scope):
                    raise AuthenticationFailed("This server is called by its own gateway only.")
                receive = await _checked(scope, receive)
            except ApiError as error:
                await _refuse(send, error)
            else:
                await self._pass_on(scope, receive, _Shaped(scope, send))

    async def _pass_on(self, scope: Message, receive: Receive, send: "_Shaped") -> None:
        """Has vLLM answer. What it raises would be answered further out, in its own shape."""
        try:
            await self._app(scope, receive, send)
        except RecursionError:
            if send.started:
                raise
            param = PROMPTS.get(scope["path"])
            await send.refuse(InvalidRequest("The request is nested too deeply.", param=param))
        except Exception:
            if send.started:
                raise
            log.exception("vLLM failed to answer %s", scope["path"])
            await send.refuse(InternalError("vLLM failed to answer; see the worker's log."))

    def _knows(self, scope: Message) -> bool:
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(shown, self._expected)


async def _checked(scope: Message, receive: Receive) -> Receive:
    """Reads the body of a request to a model and checks it; gives what then yields it again.
    Raises ``InvalidRequest``. Fields that only vLLM knows are for vLLM to judge."""
    model = CHECKED.get(scope["path"])
    if model is None or scope["method"] != "POST":
        return receive
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return _first(message, receive)  # it hung up
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = b"".join(parts)
    parse(model, body)
    return _first({"type": "http.request", "body": body, "more_body": False}, receive)


def _first(message: Message, rest: Receive) -> Receive:
    """Gives a message, and then what there is."""
    waiting = [message]

    async def receive() -> Message:
        return waiting.pop() if waiting else await rest()

    return receive


class _Shaped:
    """Sends an answer on; errors in it, of their own or as events of a stream, in OpenAI's
    shape."""

    def __init__(self, scope: Message, send: Send) -> None:
        self._path = scope["path"]
        self._send = send
        self._status = 0
        self._body: bytearray | None = None
        self.started = False

    async def __call__(self, message: Message) -> None:
        """Takes one ASGI message."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._status >= 400:
                self._body = bytearray()
                return
        elif self._body is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self.refuse(reshaped(self._status, bytes(self._body), self._path))
            return
        elif message.get("body", b"").startswith(_ERROR_EVENT):
            message = {**message, "body": self._event(message["body"])}
        self.started = True
        await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        """Answers with an error; nothing was answered before."""
        self.started = True
        await _refuse(self._send, error)

    def _event(self, body: bytes) -> bytes:
        """The first event of a piece is an error; what follows it stays."""
        event, end, rest = body.partition(b"\n\n")
        error = reshaped(0, event.removeprefix(b"data: "), self._path)
        return b"data: " + msgspec.json.encode(openai_body(error)) + end + rest


async def _refuse(send: Send, error: ApiError) -> None:
    body = msgspec.json.encode(openai_body(error))
    fields = {"content-type": "application/json", "content-length": str(len(body))}
    pairs = [(k.encode(), v.encode()) for k, v in (fields | headers(error)).items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
