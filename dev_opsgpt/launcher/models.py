"""Models that come and go while the service runs, as the controller or a changed configuration
asks."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from dev_opsgpt.config import Settings
from dev_opsgpt.launcher.catalogue import failures
from dev_opsgpt.launcher.channel import CommandFailed
from dev_opsgpt.launcher.client import CallFailed, Calls
from dev_opsgpt.launcher.free_ports import on_free_ports
from dev_opsgpt.launcher.link import Exit
from dev_opsgpt.launcher.plan import model_processes
from dev_opsgpt.launcher.unit import STOP_MARGIN, Part, State, Unit
from dev_opsgpt.launcher.units import ENDED, Units

# Between the look at a port and the worker that binds it, somebody else may.
PORT_ATTEMPTS = 3

Served = tuple[Unit, Part]


class Models:
    """Starts and stops models among the units of a launcher. A model that is started here is kept
    alive like those of the plan; one that is stopped stays stopped.

    ``settings`` may be set anew; they are for what begins after that.
    """

    def __init__(self, settings: Settings, units: Units, calls: Calls, launcher: str) -> None:
        self.settings = settings
        self._units = units
        self._calls = calls
        self._launcher = launcher
        self._orders: Counter[str] = Counter()
        self._released: set[str] = set()
        self._demanded: set[str] = set()
        self._failures: dict[str, str] = {}
        self._working: Counter[str] = Counter()
        self._done = asyncio.Event()
        self._stopping: set[asyncio.Task[None]] = set()

    async def start_model(self, model: str, replicas: int | None = None) -> str:
        """Starts a model, with as many replicas as configured where nobody says how many; returns
        when they serve. Raises ``CommandFailed``, and has then stopped what it started."""
        if replicas is None:
            self._demanded.discard(model)
        return await self._start_anew(model, replicas)

    async def _start_anew(self, model: str, replicas: int | None = None) -> str:
        if model not in self.settings.startable_models():
            raise CommandFailed(f"the configuration cannot start a model {model!r}")
        self.order(model)
        failures = await self.start([model], replicas)
        if model in failures:
            raise CommandFailed(f"{model!r} did not start: {failures[model]}")
        return f"{model!r} serves"

    async def load_model(self, model: str, demanded: bool) -> str:
        """Has a model serve, with as many replicas as configured where it does not yet;
        ``demanded`` because a request needs it. Raises ``CommandFailed``."""
        while self._working[model]:
            await self._done.wait()
        served = self._units.serving(model, None)
        if not served:
            return await self._load(model, demanded)
        if not demanded:
            self._demanded.discard(model)
        await asyncio.gather(*(unit.settle() for unit, _ in served))
        if not any(part.state is State.READY for _, part in served):
            raise CommandFailed(f"{model!r} does not serve: {served[0][1].message}")
        return f"{model!r} serves"

    async def _load(self, model: str, demanded: bool) -> str:
        if not demanded:
            return await self.start_model(model)
        self._demanded.add(model)
        try:
            return await self._start_anew(model)
        except BaseException:
            self._demanded.discard(model)
            raise

    async def unload_model(self, model: str, address: str | None) -> str:
        """Stops a model's replica at an address, or all of them, until the model is needed again.
        Raises ``CommandFailed``."""
        found = self._units.serving(model, address)
        self.order(model)
        await self.stop(found)
        if not self._units.serving(model, None):
            self._demanded.discard(model)
            # Nobody has had it stopped: what is left of it is no word of that.
            self._units.forget(model)
        return f"{model!r} unloaded"

    async def stop_model(self, model: str, address: str | None) -> str:
        """Stops a model's replica at an address, or all of them and be it none, until somebody has
        it started again. Raises ``CommandFailed``."""
        found = self._units.serving(model, address)
        if not found and address is None and model in self.settings.startable_models():
            self.order(model)
            self._units.forget(model)
            self._released.add(model)
            return f"{model!r} is out of service"
        if not found:
            where = f" at {address}" if address else ""
            raise CommandFailed(f"this launcher runs no {model!r}{where}")
        self.order(model)
        if len(found) == len(self._units.serving(model, None)):
            names = {part.worker.model for _, part in found if part.worker is not None}
            self._released |= names
            self._demanded -= names
        await self.stop(found)
        return f"{model!r} stopped"

    def undeclared(self, model: str) -> None:
        """A model is in the configuration no more. One that is called so later is another."""
        self._released.discard(model)

    def keep(self, model: str) -> None:
        """A model that runs shall stay, whoever has had it loaded."""
        self._demanded.discard(model)

    @property
    def demanded(self) -> Collection[str]:
        """The models that run because a request needed them."""
        return self._demanded

    @property
    def working(self) -> list[str]:
        """The models of which replicas are being started."""
        return [model for model, count in self._working.items() if count]

    @contextmanager
    def work(self, models: Sequence[str]) -> Iterator[None]:
        """While it lasts, something is about to start these models."""
        self._working.update(models)
        try:
            yield
        finally:
            self._working.subtract(models)
            self._done.set()
            self._done = asyncio.Event()

    def order(self, model: str) -> int:
        """Counts one more order about a model. Whoever waits in the middle of an older one looks
        at ``latest`` before going on."""
        self._orders[model] += 1
        self._failures.pop(model, None)
        return self._orders[model]

    def latest(self, model: str) -> int:
        """The number of the latest order about a model."""
        return self._orders[model]

    def released(self, model: str) -> bool:
        """Whether somebody has had a model stopped, and nobody has had it started since."""
        return model in self._released or self._units.stopped(model)

    def all_released(self) -> list[str]:
        """Every model of which that is true; what was unloaded, and is not gone yet, is none."""
        models = self.settings.startable_models()
        return [m for m in models if m in self._released or self._units.left(m)]

    def failures(self) -> dict[str, str]:
        """Why models do not run that were to, in one line each, as far as nothing has been asked of
        them since."""
        found = failures(self._units) | self._failures
        startable = self.settings.startable_models()
        return {model: why for model, why in found.items() if model in startable}

    async def start(
        self, models: Sequence[str], replicas: int | None = None, settings: Settings | None = None
    ) -> dict[str, str]:
        """Starts models, ``replicas`` of each if not as many as configured, and returns when they
        serve. Gives the reason for each that does not; of such a model nothing is left."""
        for model in models:
            self._failures.pop(model, None)
        with self.work(models):
            found = await self._until_started(models, replicas, settings or self.settings)
        self._failures |= found
        return found

    async def _until_started(
        self, models: Sequence[str], replicas: int | None, settings: Settings
    ) -> dict[str, str]:
        for model in models:
            self._released.discard(model)
            self._units.forget(model)
        failures: dict[str, str] = {}
        wanted: Sequence[str] = models
        for _ in range(PORT_ATTEMPTS):
            failures = {model: why for model, why in failures.items() if model not in wanted}
            wanted = await self._start(settings, wanted, replicas, failures)
            if not wanted:
                break
        return failures

    async def _start(
        self,
        settings: Settings,
        models: Sequence[str],
        replicas: int | None,
        failures: dict[str, str],
    ) -> list[str]:
        """One try; gives those whose port somebody was quicker to take."""
        taken = self._units.ports()
        plans = list(on_free_ports(settings, models, replicas, taken, failures))
        specs = model_processes(settings, plans, self._calls.controller, self._launcher)
        units = [self._units.add(spec) for spec in specs]
        await asyncio.gather(*(unit.settle() for unit in units))
        parts = [
            (part.worker.model, unit, part)
            for unit in units
            for part in unit.parts.values()
            if part.worker is not None
        ]
        outrun = set()
        for model, _, part in parts:
            if part.state is not State.READY:
                failures.setdefault(model, _why(part))
                if part.code == Exit.PORT_IN_USE:
                    outrun.add(model)
        await self.stop([(unit, part) for model, unit, part in parts if model in failures])
        for model in failures:
            self._units.forget(model)
        return [model for model in models if model in outrun]

    async def stop(self, served: Sequence[Served]) -> None:
        """Drains workers and ends them, with their processes where these serve nothing else.
        Raises ``CommandFailed`` for one that does not leave its process."""
        leaving: dict[Unit, list[Part]] = {}
        for unit, part in served:
            part.leaving = True
            leaving.setdefault(unit, []).append(part)
        await asyncio.gather(*(self._stop(unit, parts) for unit, parts in leaving.items()))

    def retire(self, served: Sequence[Served]) -> None:
        """The same, in the background: these workers are as good as gone at once."""
        for _, part in served:
            part.leaving = True
        task = asyncio.create_task(self._stop_quietly(served))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop_quietly(self, served: Sequence[Served]) -> None:
        try:
            await self.stop(served)
        except CommandFailed:
            # What does not leave serves on, and is among those that serve again.
            return

    async def _stop(self, unit: Unit, parts: Sequence[Part]) -> None:
        if all(part.leaving or part.state in ENDED for part in unit.parts.values()):
            await unit.stop(self.settings.drain_timeout)
            self._units.remove(unit)
            return
        # The process serves other models too: only these workers of it are asked to leave.
        await asyncio.gather(*(self._release(unit, part) for part in parts))

    async def _release(self, unit: Unit, part: Part) -> None:
        if part.state in ENDED:
            return
        try:
            async with asyncio.timeout(self.settings.drain_timeout + STOP_MARGIN):
                await self._calls.release(part.address)
                await unit.until(lambda: part.state in ENDED)
        except (CallFailed, TimeoutError) as error:
            part.leaving = False
            raise CommandFailed(f"{part.address} did not stop: {error or 'it drains'}") from None


def _why(part: Part) -> str:
    if part.state is State.RESTARTING:
        return f"it keeps dying: its process {part.died}"
    return part.message or "it was stopped"
