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

    def ports(self) -> set[int]:
        """The ports that are in use or about to be."""
        parts = (part for unit in self._units for part in unit.parts.values())
        return {part.port for part in parts if part.state not in ENDED}

    def serving(self, model: str, address: str | None) -> list[tuple[Unit, Part]]:
        """The parts that serve a model, or the one of these at an address."""
        return [
            (unit, part)
            for unit in self._units
            for part in unit.parts.values()
            if part.worker is not None
            and part.state not in ENDED
            and (address is None or address.rstrip("/") in (part.address, part.worker.address))
            and model in (part.worker.model, *part.worker.names)
        ]

    async def stop(self, units: Iterable[Unit], drain_timeout: float) -> None:
        """Drains and ends some of them, side by side."""
        await asyncio.gather(*(unit.stop(drain_timeout) for unit in units))

    def kill(self) -> None:
        """Ends all of them at once."""
        for unit in self._units:
            unit.kill()
