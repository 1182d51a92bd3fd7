"""The gateways of a launcher under a changed configuration: told, more, fewer, or replaced."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count

from dev_opsgpt.launcher.outcomes import Line
from dev_opsgpt.launcher.plan import ProcessSpec, gateway_at, gateway_index
from dev_opsgpt.launcher.unit import State, Unit
from dev_opsgpt.launcher.units import Units

PATIENCE = 15.0
"""Seconds that a process has to take a configuration."""


class Gateways:
    """Changes the gateways among some units.

    Each is told how many there are, those that still drain and those that are about to start
    included, so that one that is alone may save what only several need. No two have the same number
    at a time, for that is what tells apart what they leave in their common folder. ``owed`` tells
    whether gateways run that should have been replaced, and could not.
    """

    def __init__(self, units: Units) -> None:
        self._units = units
        self._lock = asyncio.Lock()
        self._counting: set[asyncio.Task[None]] = set()
        self.owed = False

    async def apply(
        self, specs: Sequence[ProcessSpec], drain_timeout: float, *, replace: bool
    ) -> list[Line]:
        """Has the gateways be those of ``specs``: what runs takes its new configuration in place,
        or is replaced by new processes, which begin before the old ones drain. Fewer than there
        are replace these too, because they take over all of their sockets. Gives what went
        wrong."""
        async with self._lock:
            now = self._units.staying("gateway")
            replace = replace or self.owed or len(specs) < len(now)
            kept = [] if replace else now
            total = len(self._units.of("gateway")) + len(specs) - len(kept)
            told = list(zip(kept, specs, strict=False)) or [(unit, unit.spec) for unit in now]
            refused = await self._tell(told, total)
            new = self._begin(specs[len(kept) :], total)
            await asyncio.gather(*(unit.settle() for unit in new))
            failures = [
                Line(f"{unit.spec.name} does not start: {part.message}", ok=False)
                for unit in new
                for part in unit.parts.values()
                if part.state is not State.READY
            ]
            self.owed = replace and bool(failures)
            if self.owed:
                failures.append(Line("the gateways that ran before go on as they were", ok=False))
                leaving = new
            else:
                leaving = now if replace else []
            self._count_later(self._units.retire(leaving, drain_timeout))
            return [*([] if replace else refused), *failures]

    async def _tell(self, told: Sequence[tuple[Unit, ProcessSpec]], total: int) -> list[Line]:
        reasons = await asyncio.gather(
            *(
                unit.apply(gateway_at(spec, gateway_index(unit.spec), total), PATIENCE)
                for unit, spec in told
            )
        )
        return [
            Line(f"{unit.spec.name}: {reason}", ok=False)
            for (unit, _), reason in zip(told, reasons, strict=True)
            if reason
        ]

    def _begin(self, specs: Sequence[ProcessSpec], total: int) -> list[Unit]:
        free = self._free_numbers()
        return [self._units.add(gateway_at(spec, next(free), total)) for spec in specs]

    def _free_numbers(self) -> Iterator[int]:
        used = {gateway_index(unit.spec) for unit in self._units.of("gateway")}
        return (number for number in count() if number not in used)

    def _count_later(self, retiring: Sequence[asyncio.Task[None]]) -> None:
        if retiring:
            task = asyncio.create_task(self._count(retiring))
            self._counting.add(task)
            task.add_done_callback(self._counting.discard)

    async def _count(self, retiring: Sequence[asyncio.Task[None]]) -> None:
        """Tells those that are left how many they are, when the others have ended."""
        await asyncio.gather(*retiring, return_exceptions=True)
        async with self._lock:
            left = self._units.of("gateway")
            await self._tell([(unit, unit.spec) for unit in left if not unit.leaving], len(left))
