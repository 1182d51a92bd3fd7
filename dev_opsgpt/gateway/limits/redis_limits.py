"""Limits of several machines: every gateway counts in the same Redis.

Where Redis is away, each process counts by itself until it is back: a gateway that answered nobody
would be worse than one that lets a key have its limit once a process. What was spent is known from
the records of usage all the same.
"""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits import redis_scripts as scripts
from dev_opsgpt.gateway.limits.counting import Clock
from dev_opsgpt.gateway.limits.lease import UNLIMITED, Lease, Used
from dev_opsgpt.gateway.limits.shared import LocalLimits
from dev_opsgpt.gateway.limits.standing import Standing, refusal
from dev_opsgpt.routing.limits import span

log = logging.getLogger(__name__)

TIMEOUT = 0.5
CONNECTIONS = 32
# A request in flight that was not heard of for so long is forgotten: its gateway is dead.
LEASE_LIVES = 30.0
BEAT = 10.0
# Seconds between two tries to reach Redis while it is away.
RETRY = 1.0
# Settlements that are kept until Redis is back; the others would be of no use any more.
KEPT = 10_000
BATCH = 200
# A budget's spending is kept for so many seconds after its period.
AFTER = 86_400


class RedisLimits:
    """``Limits`` in the Redis at ``url``. To be made within the event loop that uses it; ``prefix``
    begins all names there. ``clock`` and ``wall`` as in ``CountedLimits``."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "opsgpt",
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.Redis.from_pool(pool)
        self._prefix = prefix
        self._wall = wall
        self._local = LocalLimits(clock=clock, wall=wall)
        self._away = False
        self._forgetful = False
        self._process = secrets.token_hex(8)
        self._count = 0
        self._live: dict[str, Key] = {}
        self._over: deque[tuple[Lease, int | None, float]] = deque(maxlen=KEPT)
        self._something_over = asyncio.Event()
        self._admit = self._redis.register_script(scripts.ADMIT)
        self._settle = self._redis.register_script(scripts.SETTLE)
        self._used = self._redis.register_script(scripts.USED)
        self._spent = self._redis.register_script(scripts.SPENT)
        self._beat = self._redis.register_script(scripts.BEAT)
        self._tasks = [asyncio.create_task(job) for job in (self._settle_all(), self._beat_all())]

    async def admit(self, key: Key, tokens: int) -> Lease:
        """See ``Limits``."""
        if not key.limited:
            return UNLIMITED
        if self._away:
            return await self._local.admit(key, tokens)
        self._count += 1
        name = f"{self._process}:{self._count}"
        lease = Lease(key, tokens, 0, 0, 0, name, self._lose)
        self._live[name] = key
        limits = (key.rpm, key.tpm, key.concurrent, key.budget)
        texts: list[Any] = ["" if limit is None else limit for limit in limits]
        try:
            arguments = [*texts, tokens, name, int(LEASE_LIVES * 1000)]
            found = await self._ask(self._admit(self._names(key), arguments))
        except _Away:
            # Redis may have counted it all the same.
            self.settle(lease, None, 0.0)
            return await self._local.admit(key, tokens)
        if not found[0]:
            lease.settled = True
            del self._live[name]
            raise self._refusal(key, tokens, found)
        _, requests, counted, lease.bucket = found
        lease.requests_left = (key.rpm or 0) - requests
        lease.tokens_left = (key.tpm or 0) - counted
        return lease

    def settle(self, lease: Lease, tokens: int | None, cost: float) -> None:
        """See ``Limits``; Redis is told a moment later."""
        if lease.settled:
            return
        if not isinstance(lease.entered, str):
            self._local.settle(lease, tokens, cost)
            return
        lease.settled = True
        self._live.pop(lease.entered, None)
        self._over.append((lease, tokens, cost))
        self._something_over.set()

    async def used(self, key: Key) -> Used:
        """See ``Limits``."""
        if not self._away:
            with contextlib.suppress(_Away):
                found = await self._ask(self._used(self._names(key)))
                requests, tokens, concurrent, spent = found
                return Used(requests, tokens, concurrent, float(spent))
        return await self._local.used(key)

    async def spent(self, key: Key, at: float, amount: float) -> None:
        """See ``Limits``."""
        await self._local.spent(key, at, amount)
        if not self._away and amount > 0:
            with contextlib.suppress(_Away):
                name = self._spent_name(key, at)
                await self._ask(self._spent([name], [amount, self._kept(key, at)]))

    def forgot(self) -> bool:
        """See ``Limits``."""
        forgot, self._forgetful = self._forgetful, False
        return forgot

    async def close(self) -> None:
        """Tells Redis what is over, and lets go of it."""
        for task in self._tasks:
            # The client can swallow a cancellation that comes in the middle of a call.
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=TIMEOUT)
        if not self._away:
            with contextlib.suppress(_Away):
                while self._over:
                    await self._settle_some()
        await self._redis.aclose()

    def _lose(self, lease: Lease) -> None:
        """A lease was dropped; from wherever the garbage collector was at work."""
        self.settle(lease, None, 0.0)

    def _refusal(self, key: Key, tokens: int, found: list[Any]) -> Exception:
        at = self._wall()
        _, requests, counted, spent, *milliseconds = found
        seconds = [max(0.0, number / 1000) for number in milliseconds]
        standing = Standing(
            requests=requests,
            requests_reset=seconds[0],
            requests_wait=seconds[1],
            tokens=counted,
            tokens_reset=seconds[2],
            tokens_wait=seconds[3],
            spent=float(spent),
            span=span(key.budget_period, at),
            at=at,
        )
        return refusal(key, tokens, standing)

    async def _ask(self, call: Awaitable[Any]) -> Any:
        """A call's answer. Raises ``_Away``, and everybody counts for himself from now on."""
        try:
            return await call
        except (RedisError, OSError) as error:
            self._lost(error)
            raise _Away from None

    def _lost(self, error: Exception) -> None:
        if not self._away:
            reason = str(error) or type(error).__name__
            log.warning("Redis is away, so each gateway process counts by itself: %s", reason)
        self._away = True

    async def _settle_all(self) -> None:
        """Tells Redis what is over, for as long as it is not cancelled; and looks whether it is
        back."""
        while True:
            if self._away:
                await asyncio.sleep(RETRY)
                await self._look()
                continue
            await self._something_over.wait()
            self._something_over.clear()
            with contextlib.suppress(_Away):
                while self._over:
                    await self._settle_some()

    async def _look(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            # Each of those from before would tell that it is away once more.
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            # One that may only be read is of no use either.
            await self._redis.set(f"{self._prefix}:probe", 1, ex=60)
            log.info("Redis is back")
            self._away = False
            self._forgetful = True
            self._something_over.set()

    async def _settle_some(self) -> None:
        some = [self._over.popleft() for _ in range(min(BATCH, len(self._over)))]
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for lease, tokens, cost in some:
                    await self._add_settlement(pipeline, lease, tokens, cost)
                await self._ask(pipeline.execute())
        except _Away:
            self._over.extendleft(reversed(some))
            raise

    async def _add_settlement(
        self, pipeline: Any, lease: Lease, tokens: int | None, cost: float
    ) -> None:
        key = lease.key
        if key is None:
            return
        at = self._wall()
        names = [*self._names(key)[2:5], self._spent_name(key, at)]
        counted = key.tpm is not None and tokens is not None
        change = tokens - lease.tokens if counted and tokens is not None else 0
        cost = cost if key.budget is not None else 0.0
        kept = self._kept(key, at)
        arguments: list[Any] = [lease.entered, lease.bucket, change, cost, kept]
        await self._settle(names, arguments, client=pipeline)

    async def _beat_all(self) -> None:
        """Says of what is in flight here that it still is."""
        while True:
            await asyncio.sleep(BEAT)
            alive: dict[str, tuple[Key, list[str]]] = {}
            for name, key in self._live.items():
                if key.concurrent is not None:
                    alive.setdefault(key.id, (key, []))[1].append(name)
            for key, names in alive.values():
                if not self._away:
                    with contextlib.suppress(_Away):
                        arguments: list[Any] = [int(LEASE_LIVES * 1000), *names]
                        await self._ask(self._beat([self._names(key)[4]], arguments))

    def _names(self, key: Key) -> list[str]:
        """The names of a key's counters; the braces put them on one node of a cluster."""
        stem = f"{self._prefix}:{{{key.id}}}"
        parts = ("requests", "requests:order", "tokens", "tokens:order", "in_flight")
        return [*(f"{stem}:{part}" for part in parts), self._spent_name(key, self._wall())]

    def _spent_name(self, key: Key, at: float) -> str:
        number = span(key.budget_period, at).number
        return f"{self._prefix}:{{{key.id}}}:spent:{key.budget_period}:{number}"

    def _kept(self, key: Key, at: float) -> int:
        end = span(key.budget_period, at).end
        return int(end - at) + AFTER if math.isfinite(end) else 0


class _Away(Exception):
    """Redis cannot be asked now."""
