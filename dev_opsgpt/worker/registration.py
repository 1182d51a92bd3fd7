"""How a worker makes itself known to a controller, and keeps being known.

It registers, beats with its load, registers again when the controller has forgotten it or was
away, and says goodbye. The routes are FastChat's, with what only our controller reads in fields
of its own, so that a FastChat controller works as well.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.protocol.fastchat import (
    Abilities,
    Direct,
    Exist,
    HeartBeat,
    Load,
    OpsgptInfo,
    RegisterWorker,
)
from dev_opsgpt.protocol.fastchat import WorkerStatus as Status
from dev_opsgpt.transport.client import Client, Origin

log = logging.getLogger(__name__)

BEAT_INTERVAL = 2.0
ANSWER_LIMIT = 1 << 20

_FAILURES = (ApiError, ValueError, TimeoutError, msgspec.MsgspecError)


class Registration:
    """Keeps one worker known to one controller.

    ``address`` is the worker's URL, ``names`` its models, ``load`` a function that gives its load
    now. ``launcher`` is the name of the launcher that can stop and start it, if there is one.
    ``abilities`` are what its models can do, ``direct`` gives the server beside it that gateways
    ask instead, as it is now.
    """

    def __init__(
        self,
        client: Client,
        controller: str,
        address: str,
        names: list[str],
        load: Callable[[], Load],
        *,
        secret: str | None,
        launcher: str | None = None,
        version: str = "",
        abilities: Abilities = Abilities(),  # noqa: B008 - it is frozen
        direct: Callable[[], Direct | None] = lambda: None,
        interval: float = BEAT_INTERVAL,
    ) -> None:
        self._client = client
        self._origin = Origin(controller)
        self._address = address
        self._names = names
        self._load = load
        self._headers = {"content-type": "application/json"}
        if secret:
            self._headers["authorization"] = f"Bearer {secret}"
        self._launcher = launcher
        self._version = version
        self._abilities = abilities
        self._direct = direct
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        self._known = False
        self._complained = False
        self.registered = asyncio.Event()

    def start(self) -> None:
        """Begins; ``registered`` is set once the controller knows the worker."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, *, returns: bool = False) -> None:
        """Says goodbye: no new request is sent here from now on. One that ``returns`` is going to
        ``start`` again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._known:
            try:
                goodbye = {"worker_name": self._address, "returns": returns}
                await self._post("/deregister_worker", goodbye)
            except _FAILURES as error:
                log.debug("the controller heard no goodbye: %s", error)
            self._known = False

    async def _run(self) -> None:
        while True:
            try:
                await self._once()
                self._complained = False
            except _FAILURES as error:
                self._complain(str(error) or type(error).__name__)
            except Exception:
                # Whatever it was, a worker that beats no more would be worse.
                log.exception("the registration failed")
            await asyncio.sleep(self._interval)

    async def _once(self) -> None:
        if self._known:
            load = self._load()
            beat = HeartBeat(self._address, load.running + load.waiting, load)
            reply = await self._post("/receive_heart_beat", beat)
            self._known = msgspec.json.decode(reply, type=Exist).exist
        if not self._known:
            await self._register()

    async def _register(self) -> None:
        load = self._load()
        info = OpsgptInfo(
            limit=load.limit,
            beat_interval=self._interval,
            launcher=self._launcher,
            version=self._version,
            abilities=self._abilities,
            direct=self._direct(),
        )
        status = Status(self._names, 1, load.running + load.waiting)
        sees = bool(self._abilities.vision)
        body = RegisterWorker(self._address, True, status, multimodal=sees, opsgpt=info)
        await self._post("/register_worker", body)
        self._known = True
        self.registered.set()
        log.info("registered %s as %s", ", ".join(self._names), self._address)

    async def _post(self, path: str, body: Any) -> bytes:
        """Posts JSON. Raises ``ApiError`` when nobody answers, ``ValueError`` for a refusal."""
        head = self._origin.head("POST", path, self._headers)
        async with asyncio.timeout(max(5.0, self._interval)):
            response = await self._client.send(self._origin, head, msgspec.json.encode(body))
            reply = await response.read(ANSWER_LIMIT)
        if response.status != 200:
            text = reply[:200].decode(errors="replace")
            raise ValueError(f"{path} answered {response.status}: {text}")
        return reply

    def _complain(self, reason: str) -> None:
        """Says once, not at every beat, that the controller is away."""
        if not self._complained:
            log.warning("the controller does not take %s: %s", self._address, reason)
            self._complained = True
