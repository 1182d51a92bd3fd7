"""The table of workers: who serves which model, under what load, and who was heard of when.

Pure: no I/O and no clock of its own; ``now`` is in monotonic seconds and given by the caller.
"""

from bisect import insort
from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal["opsgpt", "fastchat", "openai"]


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as the controller lists it: the row on the wire, and what policies see.

    ``address`` is the URL as it was registered. ``models`` are the names clients use, and
    ``upstream_models`` maps those that the server knows by another name. ``speed`` is a relative
    weight. ``running`` requests are in work and ``waiting`` ones queue, ``limit`` may run at once,
    which of an attached server is a guess unless it is ``limited``; ``queue_length`` is FastChat's
    sum of both. ``beats`` grows with each sign of life of any
    worker, so that of two rows of one address the later has the larger one. ``context_length`` to
    ``json_output`` tell what the worker says its models can do (see ``capabilities.py``), None
    where it does not say. ``direct_url`` is a server beside the worker that answers OpenAI's routes
    in its place; its key is made of ``direct_salt``, which is another one for each of its lives.
    """

    address: str
    models: tuple[str, ...]
    kind: Kind
    speed: float = 1.0
    queue_length: int = 0
    running: int = 0
    waiting: int = 0
    limit: int = 5
    limited: bool = False
    draining: bool = False
    beats: int = 0
    launcher: str | None = None
    upstream_models: dict[str, str] = {}
    multimodal: bool = False
    context_length: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    json_output: bool | None = None
    direct_url: str | None = None
    direct_salt: str | None = None


def split_queue(queue_length: int, limit: int) -> tuple[int, int]:
    """FastChat's one number as (running, waiting): as many as may run are taken to run."""
    running = min(queue_length, limit)
    return running, queue_length - running


@dataclass(slots=True)
class _Record:
    row: Worker
    serial: int
    seen: float
    lifetime: float | None


class Table:
    """Workers by address and by model. Workers keep the order in which they first registered."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._by_model: dict[str, list[tuple[int, str]]] = {}
        self._serial = 0
        self._beats = 0

    def __len__(self) -> int:
        return len(self._records)

    def get(self, address: str) -> Worker | None:
        """The worker's row, if it is registered."""
        record = self._records.get(address)
        return record.row if record else None

    def workers(self) -> list[Worker]:
        """All rows, first registered first."""
        return [record.row for record in self._records.values()]

    def models(self) -> list[str]:
        """The names that some worker serves and takes requests for, sorted."""
        return sorted(model for model in self._by_model if self.replicas(model))

    def replicas(self, model: str, *, draining: bool = False) -> list[Worker]:
        """The workers that serve a model, first registered first; the draining ones on request."""
        rows = [self._records[address].row for _, address in self._by_model.get(model, ())]
        return [row for row in rows if draining or not row.draining]

    def register(self, row: Worker, *, now: float, lifetime: float | None) -> bool:
        """Adds or replaces a worker; true when its address was not known.

        It expires after ``lifetime`` seconds without a beat, never with None. A known worker keeps
        its place in the order.
        """
        old = self._records.get(row.address)
        row = msgspec.structs.replace(row, beats=self._next_beat())
        if old is None:
            self._serial += 1
            self._records[row.address] = _Record(row, self._serial, now, lifetime)
            self._index(self._records[row.address])
            return True
        if old.row.models != row.models:
            self._unindex(old)
            self._index(_Record(row, old.serial, now, lifetime))
        old.row, old.seen, old.lifetime = row, now, lifetime
        return False

    def update(self, row: Worker, *, now: float) -> None:
        """Replaces the row of a worker that is registered, and takes it as a sign of life."""
        self.register(row, now=now, lifetime=self._records[row.address].lifetime)

    def beat(
        self, address: str, *, now: float, running: int, waiting: int, limit: int | None = None
    ) -> bool:
        """Takes a sign of life with the worker's load; false when the worker is not known."""
        record = self._records.get(address)
        if record is None:
            return False
        record.seen = now
        record.row = msgspec.structs.replace(
            record.row,
            queue_length=running + waiting,
            running=running,
            waiting=waiting,
            limit=record.row.limit if limit is None else limit,
            beats=self._next_beat(),
        )
        return True

    def dispatched(self, address: str) -> None:
        """Counts one request that was just sent to a worker, until its next beat tells better."""
        record = self._records.get(address)
        if record is None:
            return
        row = record.row
        runs = row.running < row.limit
        record.row = msgspec.structs.replace(
            row,
            queue_length=row.queue_length + 1,
            running=row.running + runs,
            waiting=row.waiting + (not runs),
        )

    def drain(self, address: str, drain: bool = True) -> bool:
        """Takes a worker out of service, or back into it; false when it is not known."""
        record = self._records.get(address)
        if record is None:
            return False
        record.row = msgspec.structs.replace(record.row, draining=drain)
        return True

    def remove(self, address: str) -> Worker | None:
        """Forgets a worker and gives its last row; None when it is not known."""
        record = self._records.pop(address, None)
        if record is None:
            return None
        self._unindex(record)
        return record.row

    def expire(self, now: float) -> list[Worker]:
        """Removes and gives the workers that were silent for longer than their lifetime."""
        late = [
            address
            for address, record in self._records.items()
            if record.lifetime is not None and now - record.seen > record.lifetime
        ]
        return [row for row in map(self.remove, late) if row is not None]

    def forgive(self, seconds: float) -> None:
        """Takes ``seconds`` off every worker's silence: time in which nobody could be heard."""
        for record in self._records.values():
            record.seen += seconds

    def _next_beat(self) -> int:
        self._beats += 1
        return self._beats

    def _index(self, record: _Record) -> None:
        for model in record.row.models:
            insort(self._by_model.setdefault(model, []), (record.serial, record.row.address))

    def _unindex(self, record: _Record) -> None:
        for model in record.row.models:
            places = self._by_model[model]
            places.remove((record.serial, record.row.address))
            if not places:
                del self._by_model[model]
