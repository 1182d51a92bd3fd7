"""Keeps the fleet true: a watch on the controller, pushed line by line.

When the controller is away the last table stays in force, and when it comes back with an empty one
its workers get the time to register again. A FastChat controller has no watch; it is asked every
few seconds instead.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from dev_opsgpt.gateway.fastchat_source import FastChatController
from dev_opsgpt.gateway.upstreams import Upstreams
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.routing.cards import Standing
from dev_opsgpt.routing.fleet import Fleet, Replica
from dev_opsgpt.routing.updates import Change, Models, Ping, Snapshot
from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.errors import ConnectionBroken
from dev_opsgpt.transport.response import Response

log = logging.getLogger(__name__)

# The controller pings every 2 s; a watch that is silent for longer than this is dead.
SILENCE = 7.0
RETRY = 1.0
POLL = 3.0
PROBE_TIMEOUT = 2.0
LONGEST_LINE = 64 << 20

_decoder = msgspec.json.Decoder(Snapshot | Change | Models | Ping)


class Watch:
    """Feeds one fleet from one controller, as long as ``run`` runs. ``gone`` is told the addresses
    of replicas that have left, ``models`` where the launchers' models stand."""

    def __init__(
        self,
        fleet: Fleet,
        upstreams: Upstreams,
        client: Client,
        controller: str,
        *,
        secret: str | None,
        clock: Callable[[], float],
        gone: Callable[[str], None] = lambda address: None,
        models: Callable[[list[Standing]], None] = lambda standings: None,
    ) -> None:
        self._fleet = fleet
        self._models = models
        self._tell_gone = gone
        self._upstreams = upstreams
        self._client = client
        self._origin = Origin(controller)
        self._headers = {"authorization": f"Bearer {secret}"} if secret else {}
        self._fastchat = FastChatController(client, controller, secret)
        self._clock = clock
        self._probes: set[asyncio.Task[None]] = set()
        self._complained = False
        self.synchronised = asyncio.Event()

    async def run(self) -> None:
        """Watches until it is cancelled; connects again whenever the controller went away."""
        while True:
            try:
                await self._follow()
            except (ApiError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
                if not self._complained:
                    log.warning("no watch on the controller: %s", error or "silence")
                    self._complained = True
            except Exception:
                # Whatever it was, a gateway that no longer hears of its workers would be worse.
                log.exception("the watch on the controller failed")
            await asyncio.sleep(RETRY)

    async def _follow(self) -> None:
        async with asyncio.timeout(SILENCE):
            head = self._origin.head("GET", "/watch?models=1", self._headers)
            response = await self._client.send(self._origin, head)
        try:
            if response.status == 404:
                await self._poll()
            elif response.status != 200:
                raise ValueError(f"it answered {response.status}")
            else:
                await self._read(response)
        finally:
            response.close()

    async def _read(self, response: Response) -> None:
        rest = b""
        while True:
            async with asyncio.timeout(SILENCE):
                data = await response.next()
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LONGEST_LINE:
                raise ValueError("a line of the watch has no end")
            for line in lines:
                self.apply(_decoder.decode(line))

    async def _poll(self) -> None:
        """A FastChat controller: its table has to be asked for."""
        while True:
            rows = await self._fastchat.rows()
            self._gone(self._fleet.replace(rows, self._clock()), dead=False)
            self._synchronised()
            await asyncio.sleep(POLL)

    def apply(self, message: Snapshot | Change | Models | Ping) -> None:
        """Takes one message of the watch."""
        now = self._clock()
        if isinstance(message, Models):
            self._models(message.models)
        elif isinstance(message, Snapshot):
            self._fleet.resume(message.workers, now)
            self._synchronised()
        elif isinstance(message, Change):
            self._fleet.upsert(message.upsert)
            for removed in message.remove:
                lost = removed.reason != "left"
                gone = self._fleet.remove([removed.address], now, lost=lost)
                self._gone(gone, dead=lost)
        self._gone(self._fleet.expire(now), dead=True)

    def _synchronised(self) -> None:
        self._complained = False
        self.synchronised.set()

    def _gone(self, replicas: list[Replica], *, dead: bool) -> None:
        for replica in replicas:
            self._tell_gone(replica.row.address)
            if dead and replica.in_flight:
                # Its requests would wait for the read timeout. But silence towards the
                # controller is no proof, so the worker itself is asked.
                task = asyncio.create_task(self._probe(replica))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)
            else:
                self._upstreams.forget(replica)

    async def _probe(self, replica: Replica) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                url = replica.row.address
                response = await self._client.request("GET", url, path="/health")
                response.close()
        except (ApiError, TimeoutError):
            self._upstreams.abort(replica, ConnectionBroken("The worker is gone."))
        else:
            self._upstreams.forget(replica)
