"""The gateway's calls to the controller about models."""

import asyncio
from typing import Any, TypeVar

import msgspec

from dev_opsgpt.protocol.errors import ApiError, InvalidRequest, ModelNotFound, Unavailable
from dev_opsgpt.routing.cards import Standing
from dev_opsgpt.transport.client import Client, Origin

# Seconds for the way there and back, beside what the call itself may take.
MARGIN = 5.0
ANSWER_LIMIT = 16 << 20

T = TypeVar("T")


class Told(msgspec.Struct):
    """How something went that was asked for by hand: 200, or 500 and the reason."""

    code: int
    msg: str


class _Table(msgspec.Struct):
    models: list[Standing]


class ControllerCalls:
    """Calls with the cluster's secret. Every method raises ``Unavailable`` where the controller is
    away or does not know the call, as FastChat's does not."""

    def __init__(self, client: Client, controller: str, secret: str | None) -> None:
        self._client = client
        self._origin = Origin(controller)
        self._headers = {"content-type": "application/json"}
        if secret:
            self._headers["authorization"] = f"Bearer {secret}"

    async def load(self, model: str, seconds: float, *, demanded: bool) -> Standing:
        """Has a model loaded; where it stands after so many seconds at most. Raises
        ``ModelNotFound``."""
        body = {"model_name": model, "demanded": demanded, "seconds": seconds}
        return await self._call("POST", "/load_model", Standing, body, seconds)

    async def unload(self, model: str, seconds: float) -> Told:
        """Has a model leave."""
        return await self._call("POST", "/unload_model", Told, {"model_name": model}, seconds)

    async def scale(self, model: str, replicas: int, seconds: float) -> Told:
        """Has a model served by so many replicas."""
        body = {"model_name": model, "replicas": replicas}
        return await self._call("POST", "/scale_model", Told, body, seconds)

    async def models(self) -> list[Standing]:
        """Where all models stand."""
        return (await self._call("GET", "/models", _Table)).models

    async def _call(
        self, method: str, path: str, answer: type[T], body: Any = None, seconds: float = 0.0
    ) -> T:
        data = b"" if body is None else msgspec.json.encode(body)
        head = self._origin.head(method, path, self._headers)
        try:
            async with asyncio.timeout(seconds + MARGIN):
                response = await self._client.send(self._origin, head, data)
                try:
                    found = await response.read(ANSWER_LIMIT)
                finally:
                    response.close()
        except (ApiError, TimeoutError):
            raise _away("does not answer") from None
        try:
            if response.status == 200:
                return msgspec.json.decode(found, type=answer)
            message = msgspec.json.decode(found)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            raise _away(f"answered {response.status}") from None
        if response.status == 404 and path == "/load_model":
            raise ModelNotFound(message, param="model")
        if response.status == 400:
            raise InvalidRequest(message)
        raise _away(f"answered {response.status}")


def _away(what: str) -> Unavailable:
    message = f"The controller {what}; try again shortly."
    return Unavailable(message, code="controller_unavailable", retry_after=2)
