"""The processes of one launcher, those of its plan and those started at run time."""

import asyncio
from collections.abc import Callable, Iterable, Iterator

from dev_opsgpt.launcher.plan import ProcessSpec, Role
from dev_opsgpt.launcher.unit import Part, State, Unit

ENDED = (State.STOPPED, State.FAILED)
"""States of a part that is not coming back by itself."""


class Units:
    """Units by role, port and address. ``make`` gives a unit for a process, not yet started."""

    def __init__(self, make: Callable[[ProcessSpec], Unit]) -> None:
        self._make = make
        self._units: list[Unit] = []
        self._retiring: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._units)

    def add(self, spec: ProcessSpec) -> Unit:
        """Starts one more process."""
        unit = self._make(spec)
        self._units.append(unit)
        unit.start()
        return unit

    def remove(self, unit: Unit) -> None:
        """Forgets a process that has ended; once is enough."""
        if unit in self._units:
            self._units.remove(unit)

    def of(self, *roles: Role) -> list[Unit]:
        """The units of some roles, in the order they were added."""
        return [unit for unit in self._units if unit.spec.role in roles]

    def staying(self, *roles: Role) -> list[Unit]:
        """Those of them that have not been told to stop."""
        return [unit for unit in self.of(*roles) if not unit.leaving]

    def ports(self) -> set[int]:
        """The ports that are in use or about to be."""
        parts = (part for unit in self._units for part in unit.parts.values())
        return {part.port for part in parts if part.state not in ENDED}

    def serving(self, model: str, address: str | None) -> list[tuple[Unit, Part]]:
        """The parts that serve a model, or the one of these at an address; what leaves already
        is not among them."""
        return [
            (unit, part)
            for unit in self._units
            for part in unit.parts.values()
            if part.worker is not None
            and part.state not in ENDED
            and not (part.leaving or unit.leaving)
            and (address is None or address.rstrip("/") in (part.address, part.worker.address))
            and model in (part.worker.model, *part.worker.names)
        ]

    def stopped(self, model: str) -> bool:
        """Whether a worker of a model was asked to leave, and left."""
        return any(part.state is State.STOPPED for _, part in self._of(model))

    def left(self, model: str) -> bool:
        """Whether a worker of a model has left that was not stopped from here."""
        return any(part.state is State.STOPPED and not part.leaving for _, part in self._of(model))

    def forget(self, model: str) -> None:
        """Forgets what is left of the workers of a model that have ended."""
        for unit, part in list(self._of(model)):
            if part.state in ENDED:
                del unit.parts[part.port]
                if not unit.parts:
                    self.remove(unit)

    def _of(self, model: str) -> Iterator[tuple[Unit, Part]]:
        for unit in self._units:
            for part in unit.parts.values():
                if part.worker is not None and part.worker.model == model:
                    yield unit, part

    def retire(self, units: Iterable[Unit], drain_timeout: float) -> list[asyncio.Task[None]]:
        """Has some of them drain and end, and forgets them then; returns at once, with what is done
        when they have ended."""
        tasks = []
        for unit in units:
            unit.leave()
            tasks.append(asyncio.create_task(self._retire(unit, drain_timeout)))
            self._retiring.add(tasks[-1])
            tasks[-1].add_done_callback(self._retiring.discard)
        return tasks

    async def _retire(self, unit: Unit, drain_timeout: float) -> None:
        await unit.stop(drain_timeout)
        self.remove(unit)

    async def stop(self, units: Iterable[Unit], drain_timeout: float) -> None:
        """Drains and ends some of them, side by side."""
        await asyncio.gather(*(unit.stop(drain_timeout) for unit in units))

    def kill(self) -> None:
        """Ends all of them at once."""
        for unit in self._units:
            unit.kill()
