"""Who may use a gateway, how much, and what they have used: keys, limits, records of usage, and the
database behind them."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi import Request as PageRequest

from dev_opsgpt.gateway.admin import Admin, create_admin
from dev_opsgpt.gateway.auth import Caller, Keys, admin_check
from dev_opsgpt.gateway.key_news import KeyNews
from dev_opsgpt.gateway.key_ring import KeyRing
from dev_opsgpt.gateway.limits import Limits, LocalLimits, SharedLimits
from dev_opsgpt.gateway.options import GatewayOptions
from dev_opsgpt.gateway.usage import UsageWriter
from dev_opsgpt.gateway.usage_api import Seen, create_usage_routes
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.keys import KeyStore
from dev_opsgpt.transport.asgi import bearer

CLOSING = 10.0
DAY = 86_400.0

Sources = Mapping[str, Callable[[], list[tuple[tuple[str, ...], float]]]]


class Accounts:
    """``keys`` say who asks, ``limits`` how much that may be; ``usage`` writes the records, where
    there are any. Without a database there are the configured keys, and nothing is kept.

    ``wall`` is Unix time.
    """

    def __init__(self, options: GatewayOptions, wall: Callable[[], float] = time.time) -> None:
        self.limits = _limits(options)
        self.usage: UsageWriter | None = None
        self._database: Database | None = None
        self._ring: KeyRing | None = None
        self._news: KeyNews | None = None
        self._routers: list[APIRouter] = []
        if options.database_url:
            self._database = Database(options.database_url)
            self._keep(options, self._database, wall)
        self.keys = Keys(options.api_keys, self._ring)
        if self._ring is not None:
            self._ring.looked = self.keys.forget
        self._is_admin = admin_check(options.admin_keys, options.secret)

    def _keep(self, options: GatewayOptions, database: Database, wall: Callable[[], float]) -> None:
        """Makes what needs a database."""
        store = KeyStore(database)
        self._ring = ring = KeyRing(store, self.limits, wall=wall)
        if options.runtime_dir is not None:
            self._news = KeyNews(options.runtime_dir, ring.look)
        if options.usage:
            keep_for = options.usage_days * DAY if options.usage_days else None
            self.usage = UsageWriter(database, keep_for=keep_for)
        tell = self._news.tell if self._news is not None else None
        admin = Admin(store, ring, self.limits, tell)
        self._routers = [
            create_admin(admin, self.is_admin),
            create_usage_routes(database, self._sees),
        ]

    @property
    def kept(self) -> bool:
        """Whether there is a database."""
        return self._database is not None

    @property
    def routers(self) -> list[APIRouter]:
        """The pages: keys to be managed, and reports of usage."""
        return self._routers

    def is_admin(self, token: str | None) -> bool:
        """Whether a token is an admin key."""
        return self._is_admin(token)

    async def start(self) -> None:
        """Opens the database and reads the keys. Raises ``StorageError``: who cannot know its keys
        must let nobody in."""
        if self._database is not None:
            await asyncio.to_thread(self._database.upgrade)
        if self._news is not None:
            self._news.open()
        if self._ring is not None:
            await self._ring.reload()
        if self.usage is not None:
            self.usage.start()

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What is to run beside, from the start until the stop."""
        return [] if self._ring is None else [self._ring.run()]

    def reload(self, options: GatewayOptions) -> None:
        """Goes on by the keys of other options."""
        self.keys.replace(options.api_keys)
        self._is_admin = admin_check(options.admin_keys, options.secret)
        if isinstance(self.limits, SharedLimits):
            self.limits.alone(_alone(options))

    async def stop(self) -> None:
        """Ends everything, when the last request is over; no record is lost."""
        if self._news is not None:
            await self._news.close()
        if self.usage is not None:
            await asyncio.to_thread(self.usage.close, CLOSING)
        await self.limits.close()
        if self._database is not None:
            self._database.close()

    def sources(self) -> Sources:
        """What there is to measure."""
        usage = self.usage
        if usage is None:
            return {}
        return {
            "opsgpt_usage_records_written_total": lambda: [((), float(usage.written))],
            "opsgpt_usage_records_dropped_total": lambda: [((), float(usage.dropped))],
            "opsgpt_usage_records_pending": lambda: [((), float(usage.pending))],
        }

    def _sees(self, request: PageRequest) -> Seen:
        """Whose usage a caller may look at: an admin everybody's, a key its own."""
        if self._is_admin(bearer(request.scope)):
            return Seen(all=True)
        caller: Caller = self.keys.check(request.scope)
        return Seen(key=caller.id) if caller.id else Seen(all=True)


def _alone(options: GatewayOptions) -> bool:
    """Whether no other process counts in the same file: also not one that this one replaces."""
    return options.count == 1 and options.index == 0


def _limits(options: GatewayOptions) -> Limits:
    if options.redis_url is not None:
        from dev_opsgpt.gateway.limits.redis_limits import RedisLimits

        return RedisLimits(options.redis_url)
    if options.runtime_dir is not None:
        return SharedLimits(options.runtime_dir, alone=_alone(options))
    return LocalLimits()
