"""What somebody asks for by name: a model unloaded, more or fewer replicas of it."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable

from dev_opsgpt.controller.launchers import LauncherFailed
from dev_opsgpt.controller.loads import Loads
from dev_opsgpt.controller.messages import ReleaseReply
from dev_opsgpt.controller.retire import NotRetired
from dev_opsgpt.protocol.errors import ModelNotFound
from dev_opsgpt.routing.residency import Order
from dev_opsgpt.routing.residents import Host

logger = logging.getLogger(__name__)


class NotDone(Exception):
    """It cannot be done; the message says why."""


class ByHand:
    """Carries out what people ask for, those things that concern one model one after the other.
    Neither raises for a failure: 500 and the reason."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._orders = loads.orders
        self._residents = loads.residency.residents

    async def unload(self, name: str) -> ReleaseReply:
        """Has a model leave until it is needed again; its answers in flight end."""
        try:
            model = self._loads.model(name)
            async with self._orders.locks.hold([model]):
                done = await self._unload(model)
        except (NotDone, NotRetired, LauncherFailed, ModelNotFound) as error:
            return ReleaseReply(500, str(error))
        finally:
            self._loads.stir()
        logger.info("by hand: %s", done)
        return ReleaseReply(200, done)

    async def scale(self, name: str, replicas: int) -> ReleaseReply:
        """Starts or stops replicas of a model until there are so many."""
        try:
            model = self._loads.model(name)
            async with self._orders.locks.hold([model]):
                done = await self._scale(model, replicas)
        except (NotDone, NotRetired, LauncherFailed, ModelNotFound) as error:
            return ReleaseReply(500, str(error))
        finally:
            self._loads.stir()
        logger.info("by hand: %s", done)
        return ReleaseReply(200, done)

    async def _unload(self, model: str) -> str:
        launchers = [launcher for launcher, _ in self._residents.of(model)]
        if not launchers:
            raise NotDone(f"{model!r} is not loaded")
        for launcher in launchers:
            self._loads.residency.unload(model, launcher)
        orders = [Order("unload", launcher, model, "by hand") for launcher in launchers]
        await _all(*(self._orders.take_away(order, only_idle=False) for order in orders))
        return f"{model!r} unloaded"

    async def _scale(self, model: str, replicas: int) -> str:
        there = sum(len(resident.parts) for _, resident in self._residents.of(model))
        if replicas > there:
            await self._more(model, replicas - there)
        elif replicas < there:
            await self._fewer(model, there - replicas)
        return f"{model!r}: {replicas} {'replica' if replicas == 1 else 'replicas'}"

    async def _more(self, model: str, count: int) -> None:
        places: Counter[str] = Counter()
        for _ in range(count):
            hosts = self._residents.hosts.items()
            able = [
                (launcher, host)
                for launcher, host in hosts
                if model in host.cards and self._room(model, host, places[launcher])
            ]
            if not able:
                raise NotDone(
                    f"there is no room for {count} more of {model!r}: max_loaded_models, "
                    "max_loaded_memory or max_loaded_gpu_memory would be exceeded; unload "
                    "something first"
                )
            launcher, _ = min(able, key=lambda one: one[1].replicas() + places[one[0]])
            places[launcher] += 1
        await _all(*(self._start(model, *place) for place in places.items()))

    def _room(self, model: str, host: Host, planned: int) -> bool:
        need = host.need(host.cards[model], planned + 1)
        return host.fits(self._residents.uses, [need])

    async def _start(self, model: str, launcher: str, count: int) -> None:
        orders = self._orders
        host = self._residents.hosts[launcher]
        resident = self._residents.reserve(launcher, model, count, orders.clock())
        seconds = orders.start_timeout
        try:
            await orders.launchers.command(launcher, "start", model, None, seconds, replicas=count)
        finally:
            resident.target = 0
            if not resident.parts and host.residents.get(model) is resident:
                del host.residents[model]
        await orders.until(
            lambda: all(p.address in self._residents.uses for p in resident.parts), seconds
        )

    async def _fewer(self, model: str, count: int) -> None:
        """The latest go first."""
        table = self._orders.retirer.table
        rows = [
            row
            for _, resident in self._residents.of(model)
            for part in resident.parts
            if (row := table.get(part.address)) is not None and not row.draining
        ]
        if len(rows) < count:
            raise NotDone(f"{model!r} is being changed already; try again when it serves")
        retire = self._orders.retirer.retire
        await _all(*(retire([row], model, order="unload") for row in rows[-count:]))


async def _all(*work: Awaitable[None]) -> None:
    """Waits for all of it, then raises what went wrong first."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for failure in done:
        if isinstance(failure, BaseException):
            raise failure
