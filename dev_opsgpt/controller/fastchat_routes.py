"""FastChat's controller routes, to the letter (see fschat's ``serve/controller.py``)."""

import asyncio
import logging

from fastapi import Request
from starlette.responses import Response

from dev_opsgpt.controller import http
from dev_opsgpt.controller.address import check_address
from dev_opsgpt.controller.auth import Guard
from dev_opsgpt.controller.peers import PeerFailed, Peers
from dev_opsgpt.controller.registry import FASTCHAT_LIFETIME, FASTCHAT_LIMIT, MISSED_BEATS, Registry
from dev_opsgpt.controller.relay import relay
from dev_opsgpt.controller.streaming import Stream
from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.protocol.fastchat import (
    CONTENT_TYPE,
    Abilities,
    Exist,
    HeartBeat,
    ModelList,
    ModelRequest,
    RegisterWorker,
    WorkerAddress,
    WorkerStatus,
)
from dev_opsgpt.routing.table import Worker, split_queue

logger = logging.getLogger(__name__)

_ASKED_AT_ONCE = 32


class FastChatRoutes:
    """The handlers. What they list and give out are workers that speak FastChat's protocol:
    attached OpenAI servers do not, and are left out."""

    def __init__(self, registry: Registry, peers: Peers, guard: Guard) -> None:
        self._registry = registry
        self._peers = peers
        self._guard = guard

    async def register_worker(self, request: Request) -> Response:
        """Adds a worker; null, also when it gave no status and does not answer for one."""
        message = await http.body(request, RegisterWorker)
        self._check_worker(message.worker_name, request)
        if not request.state.trusted:
            message.opsgpt = None  # who lacks the secret must not be sent it
        if message.opsgpt is not None and message.opsgpt.direct is not None:
            check_address(message.opsgpt.direct.url, "opsgpt.direct.url")
        status = message.worker_status
        if status is None or not status.model_names:
            status = await self._ask(message.worker_name, ours=message.opsgpt is not None)
        if status is not None:
            # Another may have taken the address with the secret while its status was awaited.
            self._check_worker(message.worker_name, request)
            self._registry.register(_row(message, status), lifetime=_lifetime(message))
        return http.reply(None)

    async def receive_heart_beat(self, request: Request) -> Response:
        """Takes a beat; ``{exist}`` is false when the worker has to register again."""
        beat = await http.body(request, HeartBeat)
        self._check_worker(beat.worker_name, request)
        return http.reply(
            Exist(self._registry.beat(beat.worker_name, beat.queue_length, beat.load))
        )

    async def refresh_all_workers(self, _: Request) -> Response:
        """Asks every worker for its status again, and drops those that do not answer; null."""
        slots = asyncio.Semaphore(_ASKED_AT_ONCE)
        await asyncio.gather(*(self._refresh(row, slots) for row in self._speakers()))
        return http.reply(None)

    async def list_models(self, _: Request) -> Response:
        """``{models}``: all names that can be asked for."""
        return _models(self._speakers())

    async def list_multimodal_models(self, _: Request) -> Response:
        """``{models}`` of the workers that registered as multimodal."""
        return _models([row for row in self._speakers() if row.multimodal])

    async def list_language_models(self, _: Request) -> Response:
        """``{models}`` of the workers that did not."""
        return _models([row for row in self._speakers() if not row.multimodal])

    async def get_worker_address(self, request: Request) -> Response:
        """``{address}`` of the worker for one request; "" when there is none."""
        wanted = await http.body(request, ModelRequest)
        worker = self._registry.dispatch(wanted.model)
        return http.reply(WorkerAddress(worker.address if worker else ""))

    async def worker_generate_stream(self, request: Request) -> Response:
        """Frames of a worker that serves ``model``."""
        body = await http.raw(request)
        model = http.decode(body, ModelRequest).model
        return Stream(relay(self._registry, self._peers, model, body), CONTENT_TYPE)

    async def worker_get_status(self, _: Request) -> Response:
        """All workers as if they were one."""
        rows = [row for row in self._speakers() if not row.draining]
        names = sorted({model for row in rows for model in row.models})
        speed = sum(row.speed for row in rows)
        queue = sum(row.queue_length for row in rows)
        return http.reply(WorkerStatus(names, int(speed) if speed == int(speed) else speed, queue))

    async def connection(self, _: Request) -> Response:
        """The word "success"."""
        return http.reply("success")

    def _speakers(self) -> list[Worker]:
        return [row for row in self._registry.table.workers() if row.kind != "openai"]

    def _check_worker(self, address: str, request: Request) -> None:
        """Who may speak for an address: with the secret everybody; without, those that the
        configuration names, and never for a worker that came with the secret."""
        trusted = request.state.trusted
        self._guard.admit_worker(address, trusted)
        check_address(address)
        known = self._registry.table.get(address)
        if not trusted and known is not None and known.kind != "fastchat":
            raise AuthenticationFailed("A worker of the cluster has this address.")

    async def _ask(self, address: str, *, ours: bool) -> WorkerStatus | None:
        try:
            status = await self._peers.status(address, ours=ours)
        except PeerFailed as error:
            logger.warning("no status of %s: %s", address, error)
            return None
        return status if status.model_names else None

    async def _refresh(self, row: Worker, slots: asyncio.Semaphore) -> None:
        async with slots:
            status = await self._ask(row.address, ours=row.kind == "opsgpt")
        if status is None:
            self._registry.remove(row.address, "unhealthy")
        else:
            self._registry.refresh(row.address, status)


def _row(message: RegisterWorker, status: WorkerStatus) -> Worker:
    ours = message.opsgpt
    limit = ours.limit if ours else FASTCHAT_LIMIT
    abilities = ours.abilities if ours else _fastchat_abilities(message)
    direct = ours.direct if ours else None
    running, waiting = split_queue(status.queue_length, limit)
    return Worker(
        address=message.worker_name,
        models=tuple(dict.fromkeys(status.model_names)),
        kind="opsgpt" if ours else "fastchat",
        speed=status.speed,
        queue_length=status.queue_length,
        running=running,
        waiting=waiting,
        limit=limit,
        launcher=ours.launcher if ours else None,
        multimodal=message.multimodal,
        context_length=abilities.context_length,
        tools=abilities.tools,
        vision=abilities.vision,
        json_output=abilities.json_output,
        direct_url=direct.url if direct else None,
        direct_salt=direct.salt if direct else None,
    )


def _fastchat_abilities(message: RegisterWorker) -> Abilities:
    """FastChat's protocol has no words for tools and JSON; whether a model sees is registered."""
    return Abilities(tools=False, vision=message.multimodal, json_output=False)


def _lifetime(message: RegisterWorker) -> float | None:
    if not message.check_heart_beat:
        return None
    if message.opsgpt is None:
        return FASTCHAT_LIFETIME
    return message.opsgpt.beat_interval * MISSED_BEATS


def _models(rows: list[Worker]) -> Response:
    return http.reply(
        ModelList(sorted({m for row in rows if not row.draining for m in row.models}))
    )
