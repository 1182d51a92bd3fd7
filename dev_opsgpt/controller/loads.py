"""Models that are loaded when somebody needs them, and unloaded when nobody does.

``routing/residency.py`` decides; here it is told what happens, and its orders are carried out, each
beside the others.
"""

import asyncio
import logging
from collections.abc import Callable

from dev_opsgpt.controller.launchers import LauncherFailed, LauncherLost, Launchers
from dev_opsgpt.controller.locks import NamedLocks
from dev_opsgpt.controller.messages import LauncherHello, LauncherReport, LoadRequest
from dev_opsgpt.controller.retire import NotRetired, Retirer
from dev_opsgpt.protocol.errors import ModelNotFound
from dev_opsgpt.protocol.fastchat import Load
from dev_opsgpt.routing.cards import Standing
from dev_opsgpt.routing.residency import Order, Residency
from dev_opsgpt.routing.residents import Resident
from dev_opsgpt.routing.table import Worker

logger = logging.getLogger(__name__)

# Time passes: so often it is looked whether something follows from that.
TICK = 0.5


class Loads:
    """Has models loaded and unloaded. ``clock`` gives monotonic seconds; ``changed`` is called
    whenever a model stands elsewhere than before."""

    def __init__(
        self,
        launchers: Launchers,
        retirer: Retirer,
        locks: NamedLocks,
        start_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self.residency = Residency()
        self.launchers = launchers
        self.retirer = retirer
        self.locks = locks
        self.start_timeout = start_timeout
        self.clock = clock
        self._changed: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._news = asyncio.Event()

    def tell(self, changed: Callable[[], None]) -> None:
        """Says who is told of changes."""
        self._changed = changed

    # What happens.

    def came(self, hello: LauncherHello) -> None:
        """A launcher has connected, or can load other models than before."""
        now = self.clock()
        self.residency.residents.announce(hello.name, hello.cards, hello.bounds)
        self.residency.residents.report(
            hello.name, hello.parts, hello.released, now, hello.failures
        )
        self.residency.forgive(card.name for card in hello.cards)
        self.stir()

    def left(self, launcher: str) -> None:
        """A launcher has gone."""
        self.residency.residents.gone(launcher)
        self.stir()

    def report(self, report: LauncherReport) -> bool:
        """A launcher tells what it has; false for one that is not connected."""
        if report.name not in self.residency.residents.hosts:
            return False
        self.residency.residents.report(
            report.name, report.parts, report.released, self.clock(), report.failures
        )
        self.stir()
        return True

    def heard(self, row: Worker, load: Load | None, now: float) -> None:
        """A worker has registered, or beats."""
        if row.launcher is None:
            return
        busy = row.queue_length > 0 if load is None else load.running + load.waiting > 0
        taken, memory = (None, 0) if load is None else (load.taken, load.memory)
        self.residency.residents.heard(row.address, busy, taken, memory, now)
        if load is None:
            self.stir()

    def lost(self, address: str) -> None:
        """A worker is registered no more."""
        self.residency.residents.lost(address)
        self.stir()

    def stir(self) -> None:
        """Something has changed: it is looked what follows."""
        self._wake.set()
        self._news.set()
        self._news = asyncio.Event()
        self._changed()

    # What is asked for.

    async def load(self, request: LoadRequest) -> Standing:
        """Has a model loaded and gives where it stands: when it is loaded, when that has failed, or
        when the time is over. Raises ``ModelNotFound``."""
        model = self.model(request.model_name)
        if not request.demanded:
            self.residency.want(model, self.clock(), by_hand=True)
            self.stir()
            await self._keep(model)
        deadline = self.clock() + request.seconds
        while True:
            if request.demanded:
                # An unload in between takes the wish away.
                self.residency.want(model, self.clock())
                self._wake.set()
            standing = self.residency.standing(model, self.clock())
            if standing is None:
                raise ModelNotFound(f"There is no model {model!r} any more.", param="model_name")
            over = standing.phase in ("loaded", "failed", "restarting")
            left = deadline - self.clock()
            if over or left <= 0 or (request.demanded and not standing.loadable):
                return standing
            try:
                async with asyncio.timeout(min(left, TICK)):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _keep(self, model: str) -> None:
        """What a request has loaded stays from now on, since somebody wants it to."""
        for launcher, resident in list(self.residency.residents.of(model)):
            if resident.demanded and self.residency.residents.ready(resident):
                try:
                    await self.launchers.command(launcher, "load", model, None, self.start_timeout)
                    resident.demanded = False
                except LauncherFailed as error:
                    logger.warning("%r may be unloaded when it is idle: %s", model, error)

    def model(self, name: str) -> str:
        """The model that is called so. Raises ``ModelNotFound``."""
        model = self.residency.residents.resolve(name)
        if model is None:
            message = f"No launcher that is connected can load a model {name!r}."
            raise ModelNotFound(message, param="model_name")
        return model

    def standings(self) -> list[Standing]:
        """Where every model of the launchers stands."""
        return self.residency.standings(self.clock())

    # What follows.

    async def run(self) -> None:
        """Carries out what is decided, until it is cancelled."""
        try:
            while True:
                self._wake.clear()
                for order in self.residency.decide(self.clock()):
                    logger.info("%s %r on %s: %s", *_told(order))
                    self._begin(order)
                try:
                    async with asyncio.timeout(TICK):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, order: Order) -> None:
        work = self._load(order) if order.kind == "load" else self._unload(order)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._changed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("an order was not carried out", exc_info=error)
        self.stir()

    async def _load(self, order: Order) -> None:
        try:
            async with self.locks.hold([order.model]):
                await self._loaded(order)
        except LauncherLost as error:
            logger.warning("%r is not loaded: %s", order.model, error)
            self.residency.failed(order, str(error), self.clock(), its_fault=False)
        except LauncherFailed as error:
            logger.warning("%r is not loaded: %s", order.model, error)
            self.residency.failed(order, str(error), self.clock())
        except BaseException:
            self.residency.failed(order, "it was called off", self.clock(), its_fault=False)
            raise

    async def _loaded(self, order: Order) -> None:
        deadline = self.clock() + self.start_timeout
        await self.launchers.command(
            order.launcher,
            "load",
            order.model,
            None,
            self.start_timeout,
            demanded=order.demanded,
        )
        if not await self.until(lambda: self._serves(order), deadline - self.clock()):
            raise LauncherFailed(f"{order.model!r} was started but did not register")
        self.residency.loaded(order, self.clock())

    def _serves(self, order: Order) -> bool:
        residents = self.residency.residents
        found = [r for launcher, r in residents.of(order.model) if launcher == order.launcher]
        return any(residents.ready(resident) for resident in found)

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Waits until a condition holds; false when it did not within the time."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _unload(self, order: Order) -> None:
        try:
            async with self.locks.hold([order.model]):
                await self.take_away(order, only_idle=True)
        except (NotRetired, LauncherFailed) as error:
            logger.info("%r stays loaded for now: %s", order.model, error)

    async def take_away(self, order: Order, *, only_idle: bool) -> None:
        """Unloads all replicas of a model on a launcher. Raises ``NotRetired`` and
        ``LauncherFailed``; what has not left by then serves on."""
        try:
            await self._retire(order, only_idle)
        except BaseException:
            self.residency.kept(order, self.clock())
            raise
        self.residency.unloaded(order)

    async def _retire(self, order: Order, only_idle: bool) -> None:
        table = self.retirer.table
        resident = self._resident(order)
        parts = resident.parts if resident is not None else ()
        rows = [row for part in parts if (row := table.get(part.address)) is not None]
        done = await asyncio.gather(
            *(
                self.retirer.retire(row, order.model, order="unload", only_idle=only_idle)
                for row in rows
            ),
            return_exceptions=True,
        )
        for failure in done:
            if isinstance(failure, BaseException):
                raise failure
        if len(rows) < len(parts):
            # What was not registered has nobody to drain.
            await self.launchers.command(
                order.launcher, "unload", order.model, None, self.start_timeout
            )

    def _resident(self, order: Order) -> Resident | None:
        host = self.residency.residents.hosts.get(order.launcher)
        return host.residents.get(order.model) if host is not None else None


def _told(order: Order) -> tuple[str, str, str, str]:
    return order.kind, order.model, order.launcher, order.why
