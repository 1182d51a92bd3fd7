"""Models under a changed configuration: started, taken away, replaced, more or fewer of each.

A replacement starts the new worker first, so that somebody serves the model all the time, and the
old one then drains in the background. Where the new one must have the old one's port, or the two do
not fit into memory together, the old one has to leave first.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

from dev_opsgpt.config import Settings
from dev_opsgpt.config.changes import Changes
from dev_opsgpt.config.plan import kind_of
from dev_opsgpt.launcher.channel import CommandFailed
from dev_opsgpt.launcher.models import Models
from dev_opsgpt.launcher.outcomes import Line
from dev_opsgpt.launcher.unit import Part, Unit
from dev_opsgpt.launcher.units import ENDED, Units

Room = Callable[[Path], bool]


def has_room(path: Path) -> bool:
    """Whether a model's weights fit into the memory that is free."""
    from dev_opsgpt.engines.memory import available_memory

    available = available_memory()
    files = path.rglob("*") if path.is_dir() else [path]
    return available is None or sum(file.stat().st_size for file in files) < available


class Replacing:
    """Carries the changes of models out, for one new configuration. ``mine`` are the models that
    this launcher may start."""

    def __init__(
        self,
        models: Models,
        units: Units,
        settings: Settings,
        mine: Iterable[str],
        room: Room = has_room,
    ) -> None:
        self._models = models
        self._units = units
        self._settings = settings
        self._mine = frozenset(mine)
        self._room = room

    async def carry_out(self, found: Changes) -> list[Line]:
        """Does what the changes ask for and tells what came of it, one line a model. What drains
        goes on draining after that."""
        lines = [self._remove(model) for model in found.removed]
        lines += [self._keep(model) for model in found.added if self._running(model)]
        replace = [model for model in found.changed if self._running(model)]
        start = [
            model
            for model in dict.fromkeys((*found.added, *found.changed))
            if model in self._mine and not self._running(model)
        ]
        for model in [m for m in start if m not in found.added and self._models.released(m)]:
            start.remove(model)
            lines.append(Line(f"{model}: changed, and stays stopped"))
        work: list[Awaitable[list[Line]]] = [self._scale(model) for model in found.scaled]
        work += self._all(start, replace)
        done = await asyncio.gather(*work)
        return [*lines, *(line for some in done for line in some)]

    def _all(self, start: list[str], replace: list[str]) -> list[Awaitable[list[Line]]]:
        """The work, of which each part goes on beside the others."""
        waiting = [model for model in (*start, *replace) if self._waits(model)]
        at_once = [model for model in (*start, *replace) if model not in waiting]
        online = [model for model in at_once if kind_of(self._settings, model) == "online"]
        local = [model for model in at_once if model not in online]
        work: list[Awaitable[list[Line]]] = [self._in_turn(model) for model in waiting]
        work += [self._start([model]) for model in local if model in start]
        # One after the other: each is there twice for a while.
        work.append(self._one_by_one([model for model in local if model in replace]))
        if online:
            work.append(self._start(online))
        return work

    def _remove(self, model: str) -> Line:
        served = self._units.serving(model, None)
        self._models.order(model)
        self._models.keep(model)
        if model not in self._settings.startable_models():
            self._models.undeclared(model)
        self._models.retire(served)
        return Line(f"{model}: removed" if served else f"{model}: removed; it was not running")

    def _keep(self, model: str) -> Line:
        """A model that is to start was loaded by a request already."""
        self._models.keep(model)
        return Line(f"{model}: it is loaded already, and stays")

    async def _scale(self, model: str) -> list[Line]:
        served = self._units.serving(model, None)
        if not served:
            return []
        wanted = self._settings.worker(model).replicas
        self._models.order(model)
        self._models.retire(served[wanted:])
        if wanted > len(served):
            failures = await self._models.start([model], wanted - len(served), self._settings)
            if model in failures:
                return [Line(f"{model}: no more replicas: {failures[model]}", ok=False)]
        return [Line(f"{model}: {wanted} {'replica' if wanted == 1 else 'replicas'}")]

    async def _start(self, models: list[str]) -> list[Line]:
        """Starts models together. What served them before drains; where the new one does not
        start, it serves on."""
        before = {model: self._units.serving(model, None) for model in models}
        for model in models:
            self._models.order(model)
        failures = await self._models.start(models, None, self._settings)
        for model in models:
            if model not in failures:
                self._models.retire(before[model])
        return [_told(model, bool(before[model]), failures.get(model)) for model in models]

    async def _one_by_one(self, models: list[str]) -> list[Line]:
        lines: list[Line] = []
        for model in models:
            path = self._settings.plan_for(model).path
            fits = not isinstance(path, Path) or self._room(path)
            lines += await (self._start([model]) if fits else self._in_turn(model, "memory"))
        return lines

    async def _in_turn(self, model: str, why: str = "") -> list[Line]:
        """Starts a model when what served it before, or has its port, has left."""
        number = self._models.order(model)
        with self._models.work([model]):
            return await self._start_after(model, number, why)

    async def _start_after(self, model: str, number: int, why: str) -> list[Line]:
        served = self._units.serving(model, None)
        try:
            await self._models.stop(served)
        except CommandFailed as error:
            return [Line(f"{model}: not replaced: {error}", ok=False)]
        for unit, part in self._holders(model):
            await unit.until(partial(_ended, part))
        if self._models.latest(model) != number:
            return [Line(f"{model}: another order came in between")]
        failures = await self._models.start([model], None, self._settings)
        if model in failures or not served:
            return [_told(model, False, failures.get(model))]
        port = self._settings.worker(model).port
        reason = (
            "there is no room in memory for both"
            if why == "memory"
            else f"the port {port} is its own"
        )
        return [Line(f"{model}: replaced, the old one first: {reason}")]

    def _waits(self, model: str) -> bool:
        return bool(self._holders(model))

    def _holders(self, model: str) -> list[tuple[Unit, Part]]:
        """What has the model's own port, and is or will be on its way out."""
        port = self._settings.worker(model).port
        served = [id(part) for _, part in self._units.serving(model, None)]
        return [
            (unit, part)
            for unit in self._units
            for part in unit.parts.values()
            if part.port == port
            and part.state not in ENDED
            and (part.leaving or id(part) in served)
        ]

    def _running(self, model: str) -> bool:
        return bool(self._units.serving(model, None))


def _ended(part: Part) -> bool:
    return part.state in ENDED


def _told(model: str, replaced: bool, failure: str | None) -> Line:
    if failure is None:
        return Line(f"{model}: replaced" if replaced else f"{model}: started")
    if replaced:
        return Line(f"{model}: not replaced, the old one serves on: {failure}", ok=False)
    return Line(f"{model}: not started: {failure}", ok=False)
