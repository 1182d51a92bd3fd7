"""Models that are loaded when somebody needs them, and unloaded when nobody does.

``routing/residency.py`` decides; here it is told what happens and what is asked for, and
``controller/orders.py`` carries its orders out.
"""

import asyncio
import logging
from collections.abc import Callable

from dev_opsgpt.controller.launchers import Launchers
from dev_opsgpt.controller.locks import NamedLocks
from dev_opsgpt.controller.messages import LauncherHello, LauncherReport, LoadRequest
from dev_opsgpt.controller.orders import Orders
from dev_opsgpt.controller.retire import Retirer
from dev_opsgpt.protocol.errors import ModelNotFound
from dev_opsgpt.protocol.fastchat import Load
from dev_opsgpt.routing.cards import Standing
from dev_opsgpt.routing.residency import Residency
from dev_opsgpt.routing.table import Worker

logger = logging.getLogger(__name__)

# Time passes: so often it is looked whether something follows from that.
TICK = 0.5


class Loads:
    """Has models loaded and unloaded. ``clock`` gives monotonic seconds, ``start_timeout`` is how
    long a load may take."""

    def __init__(
        self,
        launchers: Launchers,
        retirer: Retirer,
        locks: NamedLocks,
        start_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self.residency = Residency()
        self.clock = clock
        self.orders = Orders(
            self.residency, launchers, retirer, locks, start_timeout, clock, self.stir
        )
        self._changed: Callable[[], None] = lambda: None
        self._met: set[str] = set()
        self._wake = asyncio.Event()

    def tell(self, changed: Callable[[], None]) -> None:
        """Says who is told whenever a model stands elsewhere than before."""
        self._changed = changed

    # What happens.

    def came(self, hello: LauncherHello, changed: bool) -> None:
        """A launcher has connected, or has ``changed`` its configuration."""
        now = self.clock()
        self.residency.residents.announce(hello.name, hello.cards, hello.bounds)
        self.residency.residents.report(
            hello.name, hello.parts, hello.released, now, hello.failures
        )
        # One that was only away for a moment has nothing new to try.
        if changed or hello.name not in self._met:
            self.residency.forgive(card.name for card in hello.cards)
        self._met.add(hello.name)
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
        self.orders.told()
        self._changed()

    # What is asked for.

    async def load(self, request: LoadRequest) -> Standing:
        """Has a model loaded and gives where it stands: when it is loaded, when that has failed, or
        when the time is over. Raises ``ModelNotFound``."""
        model = self.model(request.model_name)
        if not request.demanded:
            self.residency.want(model, self.clock(), by_hand=True)
            self.stir()
            self.orders.keep(model)
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
            await self.orders.news(min(left, TICK))

    def model(self, name: str) -> str:
        """The model that is called so. Raises ``ModelNotFound``."""
        model = self.residency.residents.resolve(name)
        if model is None:
            message = (
                f"No running launcher can load a model {name!r}: its configuration declares no "
                "local model of that name."
            )
            raise ModelNotFound(message, param="model_name")
        return model

    def standings(self) -> list[Standing]:
        """Where every model of the launchers stands."""
        return self.residency.standings(self.clock())

    # What follows.

    async def run(self) -> None:
        """Has what is decided carried out, until it is cancelled."""
        try:
            while True:
                self._wake.clear()
                try:
                    self._decide()
                except Exception:
                    # Whatever was at fault, the other models go on.
                    logger.exception("what is to be loaded could not be decided")
                try:
                    async with asyncio.timeout(TICK):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            await self.orders.close()

    def _decide(self) -> None:
        found = self.residency.decide(self.clock())
        for order in found:
            self.orders.begin(order)
        if found:
            self._changed()
