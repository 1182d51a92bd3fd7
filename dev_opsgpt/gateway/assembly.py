"""One gateway's parts, put together, started, changed while it runs, and ended."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from fastapi import Request as PageRequest

from dev_opsgpt.gateway.access_log import AccessLog
from dev_opsgpt.gateway.admin import Admin, create_admin
from dev_opsgpt.gateway.attempt import Asker
from dev_opsgpt.gateway.auth import Caller, Keys, admin_check
from dev_opsgpt.gateway.controller_calls import ControllerCalls
from dev_opsgpt.gateway.exporter import Exporter
from dev_opsgpt.gateway.fastchat_worker import FastChatWorkers
from dev_opsgpt.gateway.forward import Forwarder
from dev_opsgpt.gateway.gauges import fleet_sources
from dev_opsgpt.gateway.hot_path import PATHS, HotPath, Sink
from dev_opsgpt.gateway.key_news import KeyNews
from dev_opsgpt.gateway.key_ring import KeyRing
from dev_opsgpt.gateway.limits import Limits, LocalLimits, SharedLimits
from dev_opsgpt.gateway.loads import Loads
from dev_opsgpt.gateway.metrics import Metrics
from dev_opsgpt.gateway.metrics_page import PATH as PAGE
from dev_opsgpt.gateway.metrics_page import create_metrics_page, reader_check
from dev_opsgpt.gateway.model_admin import ModelAdmin, create_model_admin
from dev_opsgpt.gateway.options import GatewayOptions
from dev_opsgpt.gateway.pages import Pages, create_pages
from dev_opsgpt.gateway.passthrough import PATH, PassThrough
from dev_opsgpt.gateway.request_id import Identified, RequestIds, new_prefix
from dev_opsgpt.gateway.routes import Routes
from dev_opsgpt.gateway.snapshot_files import SnapshotFiles
from dev_opsgpt.gateway.standings import Standings
from dev_opsgpt.gateway.tracing import create_tracing
from dev_opsgpt.gateway.upstreams import Upstreams
from dev_opsgpt.gateway.usage import UsageWriter
from dev_opsgpt.gateway.usage_api import Seen, create_usage_routes
from dev_opsgpt.gateway.watch import Watch
from dev_opsgpt.routing.dispatch import Dispatcher
from dev_opsgpt.routing.fleet import Fleet
from dev_opsgpt.routing.retry import RetryBudget
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.keys import KeyStore
from dev_opsgpt.transport.asgi import CancelOnDisconnect, bearer
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.connection import Hot
from dev_opsgpt.transport.log_writer import LogWriter
from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import App

log = logging.getLogger(__name__)

CLOSING = 10.0
DAY = 86_400.0


class Gateway:
    """A gateway without its port: ``hot`` answers the routes that carry generations, ``app`` all
    others. To be made within the event loop that it runs in.

    Raises ``ValueError`` for a dispatch method or URL that does not exist.
    """

    def __init__(
        self,
        options: GatewayOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self._options = options
        rng = rng or Random()  # noqa: S311 - no secret hangs on it
        self._client = Client(
            connect_timeout=options.connect_timeout, read_timeout=options.read_timeout
        )
        self._fleet = Fleet(options.declared, options.breaker)
        self._upstreams = Upstreams(
            self._client, secret=options.secret, attached_keys=options.attached_keys
        )
        self._database = Database(options.database_url) if options.database_url else None
        self._limits = _limits(options)
        self._ring: KeyRing | None = None
        self._news: KeyNews | None = None
        if self._database is not None:
            self._store = KeyStore(self._database)
            self._ring = KeyRing(self._store, self._limits, wall=wall)
        self._keys = Keys(options.api_keys, self._ring)
        if self._ring is not None:
            self._ring.looked = self._keys.forget
            if options.runtime_dir is not None:
                self._news = KeyNews(options.runtime_dir, self._ring.look)
        self._is_admin = admin_check(options.admin_keys, options.secret)
        self._usage: UsageWriter | None = None
        if self._database is not None and options.usage:
            keep_for = options.usage_days * DAY if options.usage_days else None
            self._usage = UsageWriter(self._database, keep_for=keep_for)
        self._dispatcher = Dispatcher(lambda model: self._forwarder.routes.policy_of(model), rng)
        self._metrics = Metrics(
            {
                **fleet_sources(self._fleet, lambda: self._forwarder.lines.depths(), clock),
                "opsgpt_streams_open": lambda: [((), float(self._hot_path.streams))],
                **self._usage_sources(),
            }
        )
        calls = ControllerCalls(self._client, options.controller, options.secret)
        self._calls = calls
        self._standings = Standings(clock)
        self._loads = Loads(self._fleet, self._standings, calls, clock)
        self._forwarder = Forwarder(
            self._fleet,
            Routes(options.route, options.routes),
            self._dispatcher,
            Asker(self._fleet, self._upstreams, FastChatWorkers(self._client), clock),
            RetryBudget(options.retry_budget),
            self._metrics,
            self._loads,
            clock=clock,
            rng=rng,
        )
        self._tracing = create_tracing(options.otlp_endpoint)
        self._log_writer = LogWriter(sys.stderr) if options.access_log else None
        self._ids = RequestIds(new_prefix())
        parts: dict[str, Any] = {
            "forwarder": self._forwarder,
            "keys": self._keys,
            "limits": self._limits,
            "tracing": self._tracing,
            "ids": self._ids,
            "sinks": self._sinks(strangers=False),
            "doormen": self._sinks(strangers=True),
            "max_body": options.max_body_size,
            "clock": clock,
            "wall": wall,
        }
        self._hot_path = HotPath(**parts)
        self._voice = PassThrough(self._client, options.llm_base_url, **parts)
        self._watch = Watch(
            self._fleet,
            self._upstreams,
            self._client,
            options.controller,
            secret=options.secret,
            clock=clock,
            gone=self._dispatcher.gone,
            models=self._standings.take,
        )
        files = SnapshotFiles(options.runtime_dir, options.index) if options.runtime_dir else None
        self._exporter = Exporter(self._metrics, files, index=options.index, clock=wall)
        self._tasks: list[asyncio.Task[None]] = []
        self.hot: Hot = {
            **{path.encode(): self._hot_path for path in PATHS},
            PATH.encode(): self._voice,
        }
        self.app: App = self._pages(clock)

    async def start(self) -> None:
        """Opens the database, reads the keys, begins to watch the controller. Raises
        ``StorageError``: who cannot know its keys must let nobody in."""
        if self._database is not None:
            await asyncio.to_thread(self._database.upgrade)
        if self._news is not None:
            self._news.open()
        if self._ring is not None:
            await self._ring.reload()
        if self._usage is not None:
            self._usage.start()
        await asyncio.to_thread(self._exporter.take_over)
        running = [self._watch.run(), self._exporter.run()]
        if self._ring is not None:
            running.append(self._ring.run())
        self._tasks = [asyncio.create_task(one) for one in running]

    def reload(self, options: GatewayOptions) -> None:
        """Goes on by other options: keys, routes, times and sizes, models and servers. What is
        being answered is answered. Raises ``ValueError``, and has then changed nothing."""
        self._voice.catch_all(options.llm_base_url)
        self._options = options
        self._keys.replace(options.api_keys)
        self._is_admin = admin_check(options.admin_keys, options.secret)
        self._forwarder.routes = Routes(options.route, options.routes)
        self._forwarder.budget = RetryBudget(options.retry_budget)
        self._dispatcher.reconfigured()
        if isinstance(self._limits, SharedLimits):
            self._limits.alone(_alone(options))
        self._fleet.declare(options.declared)
        self._fleet.guard_by(options.breaker)
        self._upstreams.replace_keys(options.attached_keys)
        self._client.connect_timeout = options.connect_timeout
        self._client.read_timeout = options.read_timeout
        self._hot_path.max_body = self._voice.max_body = options.max_body_size

    async def stop(self) -> None:
        """Ends everything, when the last request is over; no record is lost."""
        self._loads.close()
        if self._news is not None:
            await self._news.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._usage is not None:
            await asyncio.to_thread(self._usage.close, CLOSING)
        await self._exporter.close()
        await self._limits.close()
        await asyncio.to_thread(self._tracing.close)
        if self._log_writer is not None:
            await asyncio.to_thread(self._log_writer.close)
        self._client.close()
        if self._database is not None:
            self._database.close()

    def _sinks(self, *, strangers: bool) -> list[Sink]:
        """Who gets the records: of requests that were let in, or of ``strangers``."""
        sinks: list[Sink] = [self._metrics.finished]
        if self._log_writer is not None:
            sinks.append(AccessLog(self._log_writer, self._options.log_format).add)
        if self._usage is not None and not strangers:
            sinks.append(self._usage.add)
        return sinks

    def _usage_sources(self) -> Mapping[str, Callable[[], list[tuple[tuple[str, ...], float]]]]:
        usage = self._usage
        if usage is None:
            return {}
        return {
            "opsgpt_usage_records_written_total": lambda: [((), float(usage.written))],
            "opsgpt_usage_records_dropped_total": lambda: [((), float(usage.dropped))],
            "opsgpt_usage_records_pending": lambda: [((), float(usage.pending))],
        }

    def _pages(self, clock: Callable[[], float]) -> App:
        pages = create_pages(
            Pages(self._fleet, self._standings, self._upstreams, clock), self._keys
        )
        if self._database is not None and self._ring is not None:
            tell = self._news.tell if self._news is not None else None
            admin = Admin(self._store, self._ring, self._limits, tell)
            pages.include_router(create_admin(admin, lambda token: self._is_admin(token)))
            models = ModelAdmin(self._calls)
            pages.include_router(create_model_admin(models, lambda token: self._is_admin(token)))
            pages.include_router(create_usage_routes(self._database, self._sees))
        scraper = reader_check(lambda token: self._is_admin(token))
        routes: dict[str, dict[str, App]] = {
            PAGE: {"GET": create_metrics_page(self._exporter, scraper)}
        }
        posts = dict.fromkeys([*PATHS, PATH], "POST")
        router = Router(routes, fallback=pages, elsewhere=posts)
        return CancelOnDisconnect(Identified(router, self._ids))

    def _sees(self, request: PageRequest) -> Seen:
        """Whose usage a caller may look at: an admin everybody's, a key its own."""
        if self._is_admin(bearer(request.scope)):
            return Seen(all=True)
        caller: Caller = self._keys.check(request.scope)
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
