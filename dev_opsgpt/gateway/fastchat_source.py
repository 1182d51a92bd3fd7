"""The table of workers as far as FastChat's own controller shows it.

It has no watch and does not list workers: it names models, and for each request one worker of a
model. So the workers are found by asking again and again, remembered, and asked for their status
themselves. ``/refresh_all_workers`` is never called: it empties the controller's table first.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from dev_opsgpt.gateway.fastchat_peer import Peer
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.protocol.fastchat import ModelList, WorkerAddress, WorkerStatus
from dev_opsgpt.routing.table import Kind, Worker, split_queue
from dev_opsgpt.transport.client import Client

# Seconds between two searches for further replicas of a model. Each question counts as a request
# in a controller that chooses by shortest queue, until the worker's next beat, so they are few.
SEARCH_INTERVAL = 15.0
MOST_QUESTIONS = 64
TIMEOUT = 5.0
# FastChat's workers answer nobody while they make embeddings; one slow poll is no death.
MISSES = 3
LIMIT = 5


class _Card(msgspec.Struct):
    id: str


class _Cards(msgspec.Struct):
    """OpenAI's list of models."""

    data: list[_Card]


@dataclass
class _Known:
    """A worker that was found; ``kind`` is learned when it first answers. ``misses`` counts the
    polls that it did not answer in time since it gave ``row``."""

    peer: Peer
    kind: Kind | None = None
    row: Worker | None = None
    misses: int = 0


class FastChatController:
    """One FastChat controller at ``url``, which may hold a user name and password.

    ``secret`` goes along as a Bearer token to the controller, never to a worker: anybody may
    register one there. ``now`` gives monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        url: str,
        secret: str | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        self._controller = Peer(client, url, headers)
        self._now = now
        self._known: dict[str, _Known] = {}
        self._searched: dict[str, float] = {}
        self._beats = 0

    async def rows(self) -> list[Worker]:
        """The workers that answer now. Raises ``ApiError`` when the controller does not."""
        async with asyncio.timeout(TIMEOUT):
            models = (await self._controller.ask("/list_models", {}, ModelList)).models
            seeing = await self._controller.ask("/list_multimodal_models", {}, ModelList)
        now = self._now()
        self._searched = {m: at for m, at in self._searched.items() if m in models}
        for model in models:
            if now - self._searched.get(model, -SEARCH_INTERVAL) >= SEARCH_INTERVAL:
                await self._search(model)
                self._searched[model] = now
        self._beats += 1
        asked = [self._row(a, k, models, seeing.models) for a, k in self._known.items()]
        rows = await asyncio.gather(*asked)
        self._known = {
            address: known
            for (address, known), row in zip(self._known.items(), rows, strict=True)
            if row is not None
        }
        found = [row for row in rows if row is not None]
        for model in models:
            if not any(model in row.models for row in found):
                # Whoever served it is gone: another may be there, or come, at any time.
                self._searched.pop(model, None)
        return found

    async def _search(self, model: str) -> None:
        """Asks for the model's worker until nobody new has come up for a while."""
        seen: set[str] = set()
        since_new = 0
        for _ in range(MOST_QUESTIONS):
            async with asyncio.timeout(TIMEOUT):
                reply = await self._controller.ask(
                    "/get_worker_address", {"model": model}, WorkerAddress
                )
            if not reply.address:
                return
            since_new = since_new + 1 if reply.address in seen else 0
            seen.add(reply.address)
            self._remember(reply.address)
            if since_new > len(seen):
                return

    def _remember(self, address: str) -> None:
        if address in self._known:
            return
        try:
            self._known[address] = _Known(Peer(self._client, address))
        except ValueError:
            # Anybody may register anything there.
            return

    async def _row(
        self, address: str, known: _Known, listed: list[str], seeing: list[str]
    ) -> Worker | None:
        """A worker's row by its own word; ``None`` where it does not answer, or the controller
        lists none of its models."""
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await known.peer.ask("/worker_get_status", {}, WorkerStatus)
                models = tuple(name for name in status.model_names if name in listed)
                if known.kind is None:
                    known.kind = await _kind(known.peer, models)
        except TimeoutError:
            known.misses += 1
            return known.row if known.misses < MISSES else None
        except ApiError:
            return None
        running, waiting = split_queue(status.queue_length, LIMIT)
        sees = any(model in seeing for model in models)
        row = Worker(
            address=f"{address}/v1" if known.kind == "openai" else address,
            models=models,
            kind=known.kind,
            speed=status.speed,
            queue_length=status.queue_length,
            running=running,
            waiting=waiting,
            limit=LIMIT,
            beats=self._beats,
            multimodal=sees,
            # What FastChat's own protocol can carry; an OpenAI server may do more.
            tools=False if known.kind == "fastchat" else None,
            vision=sees if known.kind == "fastchat" else None,
            json_output=False if known.kind == "fastchat" else None,
        )
        known.misses, known.row = 0, row
        return row if models else None


async def _kind(peer: Peer, models: tuple[str, ...]) -> Kind:
    """A worker that answers OpenAI's routes too, as ours do, is better asked there."""
    data = await peer.get("/v1/models")
    try:
        cards = msgspec.json.decode(data or b"", type=_Cards).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "fastchat"
    return "openai" if {card.id for card in cards} >= set(models) else "fastchat"
