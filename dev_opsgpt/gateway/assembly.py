"""One gateway's parts, put together, started, changed while it runs, and ended."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

from dev_opsgpt.gateway.access_log import AccessLog
from dev_opsgpt.gateway.accounts import Accounts
from dev_opsgpt.gateway.attempt import Asker
from dev_opsgpt.gateway.controller_calls import ControllerCalls
from dev_opsgpt.gateway.exporter import Exporter
from dev_opsgpt.gateway.fastchat_worker import FastChatWorkers
from dev_opsgpt.gateway.forward import Forwarder
from dev_opsgpt.gateway.gauges import fleet_sources
from dev_opsgpt.gateway.hot_path import PATHS, HotPath, Sink
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
from dev_opsgpt.gateway.watch import Watch
from dev_opsgpt.routing.dispatch import Dispatcher
from dev_opsgpt.routing.fleet import Fleet
from dev_opsgpt.routing.retry import RetryBudget
from dev_opsgpt.transport.asgi import CancelOnDisconnect
from dev_opsgpt.transport.client import Client
from dev_opsgpt.transport.connection import Hot
from dev_opsgpt.transport.log_writer import LogWriter
from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import App

log = logging.getLogger(__name__)


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
        self._accounts = Accounts(options, wall)
        self._serving(options, clock, rng or Random())  # noqa: S311 - no secret hangs on it
        self._watching(options, clock, wall)
        self._tracing = create_tracing(options.otlp_endpoint)
        self._log_writer = LogWriter(sys.stderr) if options.access_log else None
        self._ids = RequestIds(new_prefix())
        parts: dict[str, Any] = {
            "forwarder": self._forwarder,
            "keys": self._accounts.keys,
            "limits": self._accounts.limits,
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
        self._tasks: list[asyncio.Task[None]] = []
        self.hot: Hot = {
            **{path.encode(): self._hot_path for path in PATHS},
            PATH.encode(): self._voice,
        }
        self.app: App = self._pages(clock)

    def _serving(self, options: GatewayOptions, clock: Callable[[], float], rng: Random) -> None:
        """Makes what chooses a replica and asks it."""
        self._client = Client(
            connect_timeout=options.connect_timeout, read_timeout=options.read_timeout
        )
        self._fleet = Fleet(options.declared, options.breaker)
        self._upstreams = Upstreams(
            self._client, secret=options.secret, attached_keys=options.attached_keys
        )
        self._dispatcher = Dispatcher(lambda model: self._forwarder.routes.policy_of(model), rng)
        self._metrics = Metrics(
            {
                **fleet_sources(self._fleet, lambda: self._forwarder.lines.depths(), clock),
                "opsgpt_streams_open": lambda: [((), float(self._hot_path.streams))],
                **self._accounts.sources(),
            }
        )
        self._calls = ControllerCalls(self._client, options.controller, options.secret)
        self._standings = Standings(clock)
        self._loads = Loads(self._fleet, self._standings, self._calls, clock)
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

    def _watching(
        self, options: GatewayOptions, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        """Makes what runs beside the requests."""
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

    async def start(self) -> None:
        """Opens the database, reads the keys, begins to watch the controller. Raises
        ``StorageError``: who cannot know its keys must let nobody in."""
        await self._accounts.start()
        await asyncio.to_thread(self._exporter.take_over)
        running = [self._watch.run(), self._exporter.run(), *self._accounts.tasks()]
        self._tasks = [asyncio.create_task(one) for one in running]

    def reload(self, options: GatewayOptions) -> None:
        """Goes on by other options: keys, routes, times and sizes, models and servers. What is
        being answered is answered. Raises ``ValueError``, and has then changed nothing."""
        self._voice.catch_all(options.llm_base_url)
        self._options = options
        self._accounts.reload(options)
        self._forwarder.routes = Routes(options.route, options.routes)
        self._forwarder.budget = RetryBudget(options.retry_budget)
        self._dispatcher.reconfigured()
        self._fleet.declare(options.declared)
        self._fleet.guard_by(options.breaker)
        self._upstreams.replace_keys(options.attached_keys)
        self._client.connect_timeout = options.connect_timeout
        self._client.read_timeout = options.read_timeout
        for part in (self._hot_path, self._voice, self._served):
            part.max_body = options.max_body_size

    async def stop(self) -> None:
        """Ends everything, when the last request is over; no record is lost."""
        self._loads.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._accounts.stop()
        await self._exporter.close()
        await asyncio.to_thread(self._tracing.close)
        if self._log_writer is not None:
            await asyncio.to_thread(self._log_writer.close)
        self._client.close()

    def _sinks(self, *, strangers: bool) -> list[Sink]:
        """Who gets the records: of requests that were let in, or of ``strangers``."""
        sinks: list[Sink] = [self._metrics.finished]
        if self._log_writer is not None:
            sinks.append(AccessLog(self._log_writer, self._options.log_format).add)
        if self._accounts.usage is not None and not strangers:
            sinks.append(self._accounts.usage.add)
        return sinks

    def _pages(self, clock: Callable[[], float]) -> App:
        accounts = self._accounts
        self._served = Pages(
            self._fleet, self._standings, self._upstreams, clock, self._options.max_body_size
        )
        pages = create_pages(self._served, accounts.keys)
        for router in accounts.routers:
            pages.include_router(router)
        if accounts.kept:
            models = ModelAdmin(self._calls)
            pages.include_router(create_model_admin(models, accounts.is_admin))
        scraper = reader_check(accounts.is_admin)
        routes: dict[str, dict[str, App]] = {
            PAGE: {"GET": create_metrics_page(self._exporter, scraper)}
        }
        posts = dict.fromkeys([*PATHS, PATH], "POST")
        everything = Router(routes, fallback=pages, elsewhere=posts)
        return CancelOnDisconnect(Identified(everything, self._ids))
