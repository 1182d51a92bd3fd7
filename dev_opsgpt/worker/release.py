"""``POST /release`` of a worker: stop, or have another model started in its place.

Source: the seed's extension of FastChat, ``{new_model_name?, keep_origin=false}`` answered by
``{code: 200, msg: "done"}``. Stopping is the worker's own affair; starting is a launcher's, which
the controller finds, so a request that names a new model is passed on to it.
"""

import asyncio
from typing import Any

import msgspec

from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.transport.client import Client

# Starting a large model takes as long as loading it.
START_TIMEOUT = 900.0


class ReleaseRequest(msgspec.Struct):
    """The body of ``/release``."""

    new_model_name: str | None = None
    keep_origin: bool = False


class Releaser:
    """Carries out releases for one worker. ``stop`` is set when the worker shall drain and end."""

    def __init__(
        self, client: Client, controller: str, model: str, stop: asyncio.Event, secret: str | None
    ) -> None:
        self._client = client
        self._controller = controller
        self._model = model
        self._stop = stop
        self._secret = secret

    async def __call__(self, request: ReleaseRequest) -> dict[str, Any]:
        """The reply: ``{code, msg}``, code 200 or 500."""
        if request.new_model_name is not None:
            return await self._pass_on(request)
        if not request.keep_origin:
            self._stop.set()
        return {"code": 200, "msg": "done"}

    async def _pass_on(self, request: ReleaseRequest) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if self._secret:
            headers["authorization"] = f"Bearer {self._secret}"
        body = {"model_name": self._model, **msgspec.to_builtins(request)}
        try:
            async with asyncio.timeout(START_TIMEOUT):
                response = await self._client.request(
                    "POST",
                    self._controller,
                    path="/release_worker",
                    headers=headers,
                    body=msgspec.json.encode(body),
                )
                reply: dict[str, Any] = msgspec.json.decode(await response.read(1 << 20))
        except (ApiError, TimeoutError, msgspec.MsgspecError) as error:
            return {"code": 500, "msg": f"the controller did not carry it out: {error}"}
        return {"code": reply.get("code", 500), "msg": reply.get("msg", "no answer")}
