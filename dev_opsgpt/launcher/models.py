"""Models that come and go while the service runs, as the controller asks."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice

from dev_opsgpt.config import ModelPlan, Settings
from dev_opsgpt.launcher.channel import CommandFailed
from dev_opsgpt.launcher.client import CallFailed, Calls
from dev_opsgpt.launcher.plan import model_processes
from dev_opsgpt.launcher.ports import is_free
from dev_opsgpt.launcher.unit import STOP_MARGIN, Part, State, Unit
from dev_opsgpt.launcher.units import ENDED, Units

LAST_PORT = 65_535


class Models:
    """Starts and stops models among the units of a launcher. A model that is started here is kept
    alive like those of the plan; one that is stopped stays stopped."""

    def __init__(self, settings: Settings, units: Units, calls: Calls, launcher: str) -> None:
        self._settings = settings
        self._units = units
        self._calls = calls
        self._launcher = launcher

    async def start_model(self, model: str) -> str:
        """Starts a model, with as many replicas as configured; returns when they serve. Raises
        ``CommandFailed``, and has then stopped what it started."""
        if model not in self._settings.startable_models():
            raise CommandFailed(f"the configuration cannot start a model {model!r}")
        plan = self._plan(model)
        specs = model_processes(self._settings, [plan], self._calls.controller, self._launcher)
        units = [self._units.add(spec) for spec in specs]
        await asyncio.gather(*(unit.settle() for unit in units))
        bad = [part for unit in units for part in unit.parts.values() if part.state != State.READY]
        if bad:
            await self._units.stop(units, self._settings.drain_timeout)
            for unit in units:
                self._units.remove(unit)
            raise CommandFailed(f"{model!r} did not start: {bad[0].message or 'it keeps dying'}")
        return f"{model!r} serves"

    async def stop_model(self, model: str, address: str | None) -> str:
        """Stops a model's replica at an address, or all of them. Raises ``CommandFailed``."""
        found = self._units.serving(model, address)
        if not found:
            where = f" at {address}" if address else ""
            raise CommandFailed(f"this launcher runs no {model!r}{where}")
        await asyncio.gather(*(self._stop(unit, part) for unit, part in found))
        return f"{model!r} stopped"

    async def _stop(self, unit: Unit, part: Part) -> None:
        others = [p for p in unit.parts.values() if p is not part and p.state not in ENDED]
        if not others:
            await unit.stop(self._settings.drain_timeout)
            self._units.remove(unit)
            return
        # The process serves other models too: only this worker of it is asked to leave.
        try:
            async with asyncio.timeout(self._settings.drain_timeout + STOP_MARGIN):
                await self._calls.release(part.address)
                await unit.until(lambda: part.state in ENDED)
        except (CallFailed, TimeoutError) as error:
            raise CommandFailed(f"{part.address} did not stop: {error or 'it drains'}") from None

    def _plan(self, model: str) -> ModelPlan:
        """The model's plan on ports that are free now, its own where they are."""
        taken = self._units.ports()
        plan = self._settings.plan_for(model, taken)
        free = self._free_ports(plan, taken)
        ports = tuple(islice(free, len(plan.ports)))
        if len(ports) < len(plan.ports):
            raise CommandFailed(f"there is no free port for {model!r}")
        return replace(plan, ports=ports)

    def _free_ports(self, plan: ModelPlan, taken: set[int]) -> Iterator[int]:
        host = plan.worker.host
        candidates = chain(plan.ports, range(max(plan.ports) + 1, LAST_PORT + 1))
        return (port for port in candidates if port not in taken and is_free(host, port))
