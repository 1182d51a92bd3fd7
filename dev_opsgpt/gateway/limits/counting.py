"""Admission and settlement over a table of counters, wherever the table is."""

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits.lease import UNLIMITED, Lease, Used
from dev_opsgpt.gateway.limits.rows import Row
from dev_opsgpt.gateway.limits.standing import Standing, refusal
from dev_opsgpt.protocol.errors import RateLimited
from dev_opsgpt.routing.limits import PER_SECOND, Period, Span, span

Clock = Callable[[], float]


class Table(Protocol):
    """Rows of counters, and this process's place in them."""

    slot: int
    epoch: int
    epochs: "memoryview[int]"

    @property
    def slots(self) -> int: ...  # noqa: D102 (see rows.py)
    def row(self, number: int) -> Row: ...  # noqa: D102
    def acquire(self, number: int) -> None: ...  # noqa: D102
    def release(self, number: int) -> None: ...  # noqa: D102
    def bury(self, slots: Iterable[int]) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class CountedLimits:
    """``Limits`` over a table. ``clock`` is monotonic and the same for all who share the table,
    ``wall`` is Unix time."""

    def __init__(
        self, table: Table, *, clock: Clock = time.monotonic, wall: Clock = time.time
    ) -> None:
        self._table = table
        self._clock = clock
        self._wall = wall
        self._spans: dict[Period, Span] = {}
        self._lost: list[Lease] = []
        self._lose = self._lost.append

    async def admit(self, key: Key, tokens: int) -> Lease:
        """See ``Limits``. Never suspends."""
        if not key.limited:
            return UNLIMITED
        if self._lost:
            self._recover()
        table = self._table
        number = key.number
        row = table.row(number)
        table.acquire(number)
        try:
            return self._admit(row, key, tokens)
        finally:
            table.release(number)

    def settle(self, lease: Lease, tokens: int | None, cost: float) -> None:
        """See ``Limits``."""
        key = lease.key
        if lease.settled or key is None:
            return
        lease.settled = True
        table = self._table
        row = table.row(key.number)
        table.acquire(key.number)
        try:
            if lease.entered is not None:
                row.leave(table.slot, lease.entered)
            if key.tpm is not None and tokens is not None and tokens != lease.tokens:
                row.tokens.used(int(self._clock() * PER_SECOND))
                row.tokens.correct(lease.bucket, tokens - lease.tokens)
            if key.budget is not None and cost > 0:
                period = self._span(key, self._wall()).number
                row.set_spent(period, row.spent(period) + cost)
        finally:
            table.release(key.number)

    async def used(self, key: Key) -> Used:
        """See ``Limits``."""
        table = self._table
        row = table.row(key.number)
        bucket = int(self._clock() * PER_SECOND)
        table.acquire(key.number)
        try:
            return Used(
                row.requests.used(bucket),
                row.tokens.used(bucket),
                self._in_flight(row, key.concurrent or 0),
                self._spent(row, key),
            )
        finally:
            table.release(key.number)

    async def spent(self, key: Key, at: float, amount: float) -> None:
        """See ``Limits``."""
        table = self._table
        row = table.row(key.number)
        period = span(key.budget_period, at).number
        table.acquire(key.number)
        try:
            if period == self._span(key, self._wall()).number and amount > row.spent(period):
                row.set_spent(period, amount)
        finally:
            table.release(key.number)

    def forgot(self) -> bool:
        """See ``Limits``."""
        return False

    async def close(self) -> None:
        """See ``Limits``."""
        self._table.close()

    def _admit(self, row: Row, key: Key, tokens: int) -> Lease:
        """Counts the request. Everything is looked at before anything is counted."""
        now = self._clock()
        bucket = int(now * PER_SECOND)
        requests_left = tokens_left = 0
        rpm, tpm, concurrent = key.rpm, key.tpm, key.concurrent
        if rpm is not None:
            requests_left = rpm - row.requests.used(bucket) - 1
        if tpm is not None:
            tokens_left = tpm - row.tokens.used(bucket) - tokens
        if (
            requests_left < 0
            or tokens_left < 0
            or (concurrent is not None and self._in_flight(row, concurrent) >= concurrent)
            or (key.budget is not None and self._spent(row, key) >= key.budget)
        ):
            raise self._refusal(row, key, tokens, now)
        epoch = None
        if rpm is not None:
            bucket = row.requests.add(1)
        if tpm is not None:
            bucket = row.tokens.add(tokens)
        if concurrent is not None:
            epoch = self._table.epoch
            row.enter(self._table.slot, epoch)
        return Lease(key, tokens, requests_left, tokens_left, bucket, epoch, self._lose)

    def _refusal(self, row: Row, key: Key, tokens: int, now: float) -> RateLimited:
        bucket = int(now * PER_SECOND)
        requests, counted = row.requests.used(bucket), row.tokens.used(bucket)
        at = self._wall()
        current = self._span(key, at)
        standing = Standing(
            requests=requests,
            requests_reset=max(0.0, row.requests.empty_at() - now),
            requests_wait=max(0.0, row.requests.frees_at(requests + 1 - (key.rpm or 0)) - now),
            tokens=counted,
            tokens_reset=max(0.0, row.tokens.empty_at() - now),
            tokens_wait=max(0.0, row.tokens.frees_at(counted + tokens - (key.tpm or 0)) - now),
            spent=row.spent(current.number),
            span=current,
            at=at,
        )
        return refusal(key, tokens, standing)

    def _in_flight(self, row: Row, limit: int) -> int:
        """Requests in flight. Only where they reach the limit it matters whether all who say so
        still live."""
        table = self._table
        found = row.in_flight(table.epochs, table.slots)
        if found >= limit:
            table.bury(row.counted_by(table.epochs, table.slots))
            found = row.in_flight(table.epochs, table.slots)
        return found

    def _spent(self, row: Row, key: Key) -> float:
        return row.spent(self._span(key, self._wall()).number)

    def _span(self, key: Key, at: float) -> Span:
        found = self._spans.get(key.budget_period)
        if found is None or not found.begin <= at < found.end:
            found = self._spans[key.budget_period] = span(key.budget_period, at)
        return found

    def _recover(self) -> None:
        """Settles what was dropped."""
        while self._lost:
            lease = self._lost.pop()
            self.settle(lease, None, 0.0)
