"""Carries out what ``routing/residency.py`` has decided: each order beside the others, those that
concern one model one after the other."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from dev_opsgpt.controller.launchers import LauncherFailed, LauncherLost, Launchers
from dev_opsgpt.controller.locks import NamedLocks
from dev_opsgpt.controller.retire import NotRetired, Retirer
from dev_opsgpt.routing.residency import Order, Residency

logger = logging.getLogger(__name__)


class Orders:
    """Has launchers load and unload. ``clock`` gives monotonic seconds, ``start_timeout`` is how
    long a load may take; ``stir`` is called when an order has ended."""

    def __init__(
        self,
        residency: Residency,
        launchers: Launchers,
        retirer: Retirer,
        locks: NamedLocks,
        start_timeout: float,
        clock: Callable[[], float],
        stir: Callable[[], None],
    ) -> None:
        self.launchers = launchers
        self.retirer = retirer
        self.locks = locks
        self.start_timeout = start_timeout
        self.clock = clock
        self._residency = residency
        self._residents = residency.residents
        self._stir = stir
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    def told(self) -> None:
        """Something has changed: whoever waits for a condition looks at it."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, seconds: float) -> None:
        """Waits until something has changed, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Waits until a condition holds; false when it did not within the time."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    await self._news.wait()
        except TimeoutError:
            return holds()
        return True

    def begin(self, order: Order) -> None:
        """Has an order carried out; returns at once."""
        logger.info("%s %r on %s: %s", order.kind, order.model, order.launcher, order.why)
        self._start(self._load(order) if order.kind == "load" else self._unload(order))

    async def close(self) -> None:
        """Calls off what is being carried out."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def take_away(self, order: Order, *, only_idle: bool) -> None:
        """Unloads all replicas of a model on a launcher, with ``only_idle`` none where one is at
        work. Raises ``NotRetired`` and ``LauncherFailed``; what has not left by then serves on."""
        try:
            await self._retire(order, only_idle)
        except BaseException:
            self._residency.kept(order, self.clock())
            raise
        self._residency.unloaded(order)

    def keep(self, model: str) -> None:
        """Has launchers know that what a request has loaded is to stay, once that is loaded;
        returns at once."""
        self._start(self._keep(model))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an order was not carried out", exc_info=error)
        self._stir()

    async def _load(self, order: Order) -> None:
        try:
            async with self.locks.hold([order.model]):
                if self._residency.stands(order):
                    await self._loaded(order)
        except LauncherLost as error:
            logger.warning("%r is not loaded: %s", order.model, error)
            self._residency.failed(order, str(error), self.clock(), its_fault=False)
        except LauncherFailed as error:
            logger.warning("%r is not loaded: %s", order.model, error)
            self._residency.failed(order, str(error), self.clock())
        except BaseException:
            self._residency.failed(order, "it was called off", self.clock(), its_fault=False)
            raise

    async def _loaded(self, order: Order) -> None:
        deadline = self.clock() + self.start_timeout
        await self._command("load", order, demanded=order.demanded)
        if not await self.until(lambda: self._serves(order), deadline - self.clock()):
            # Nobody can ask it, and it takes room.
            await self._command("unload", order)
            raise LauncherFailed(f"{order.model!r} was started but did not register")
        self._residency.loaded(order, self.clock())

    def _serves(self, order: Order) -> bool:
        resident = self._residents.on(order.launcher, order.model)
        return resident is not None and self._residents.ready(resident)

    async def _unload(self, order: Order) -> None:
        try:
            async with self.locks.hold([order.model]):
                if self._residency.stands(order):
                    await self.take_away(order, only_idle=True)
        except (NotRetired, LauncherFailed) as error:
            logger.info("%r stays loaded for now: %s", order.model, error)

    async def _retire(self, order: Order, only_idle: bool) -> None:
        table = self.retirer.table
        resident = self._residents.on(order.launcher, order.model)
        parts = resident.parts if resident is not None else ()
        rows = [row for part in parts if (row := table.get(part.address)) is not None]
        await self.retirer.retire(rows, order.model, order="unload", only_idle=only_idle)
        if len(rows) < len(parts):
            # What was not registered has nobody to drain.
            await self._command("unload", order)

    async def _keep(self, model: str) -> None:
        async with self.locks.hold([model]):
            for launcher, resident in list(self._residents.of(model)):
                if not resident.demanded or not self._residents.ready(resident):
                    continue
                try:
                    await self.launchers.command(launcher, "load", model, None, self.start_timeout)
                except LauncherFailed as error:
                    logger.warning(
                        "%s does not know that %r is to stay: %s", launcher, model, error
                    )

    async def _command(
        self, kind: Literal["load", "unload"], order: Order, *, demanded: bool = False
    ) -> None:
        await self.launchers.command(
            order.launcher, kind, order.model, None, self.start_timeout, demanded=demanded
        )
