"""The launcher on one machine: starts the processes in order, keeps them alive, stops them."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

from dev_opsgpt.config import Settings, load_settings
from dev_opsgpt.launcher.catalogue import bounds, parts
from dev_opsgpt.launcher.channel import Channel
from dev_opsgpt.launcher.client import CallFailed, Calls
from dev_opsgpt.launcher.display import Display
from dev_opsgpt.launcher.force import InForce
from dev_opsgpt.launcher.gateways import Gateways
from dev_opsgpt.launcher.handed import Handed, pack
from dev_opsgpt.launcher.hangup import Hangup
from dev_opsgpt.launcher.link import LOG_LEVEL, News
from dev_opsgpt.launcher.listening import NOTHING, Listening
from dev_opsgpt.launcher.logs import LogFile, log_name
from dev_opsgpt.launcher.models import Models
from dev_opsgpt.launcher.outcomes import Journal, Line
from dev_opsgpt.launcher.plan import ProcessSpec
from dev_opsgpt.launcher.process import Process
from dev_opsgpt.launcher.registered import registered
from dev_opsgpt.launcher.reload import Reloader, Work
from dev_opsgpt.launcher.report import Reporter, closing_of
from dev_opsgpt.launcher.reports import Reports
from dev_opsgpt.launcher.unit import Life, Part, State, Unit
from dev_opsgpt.launcher.units import Units
from dev_opsgpt.launcher.watching import Fingerprint

ROOT = Path(__file__).resolve().parents[2]
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StartFailed(Exception):
    """The start as a whole failed; the message says why in one line."""


class Launcher:
    """Runs what is in force. ``name`` is how the controller knows this launcher, ``secret`` the
    cluster's; ``logs`` is the folder of the children's log files, ``run_dir`` that which they
    share. ``config_dir`` is looked at for changes; ``known`` is what was there when it was read."""

    def __init__(
        self,
        force: InForce,
        display: Display,
        *,
        name: str,
        secret: str,
        logs: Path,
        run_dir: Path,
        config_dir: Path,
        known: Fingerprint,
        quiet: bool = False,
    ) -> None:
        self._force = force
        self._display = display
        self._name = name
        self._logs = logs
        self._config_dir = config_dir
        self._environ = _environ(force.settings, secret, quiet)
        self._calls = Calls(force.plan.controller, secret)
        self._reporter = Reporter(display)
        self._listening = Listening()
        self._units = Units(self._unit)
        self._gateways = Gateways(self._units)
        self._models = Models(force.settings, self._units, self._calls, name)
        self._reports = Reports(
            self._calls,
            name,
            models=lambda: force.settings.startable_models(),
            cards=force.cards,
            bounds=lambda: bounds(force.settings),
            parts=lambda: parts(self._units, self._models.demanded, self._models.working),
            failures=self._models.failures,
            released=self._models.all_released,
        )
        self._reloader = Reloader(config_dir, known, self._take, Journal(run_dir), display)
        self._hangup = Hangup(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Starts everything, stays until it is told to stop, stops everything; the exit code.

        SIGINT and SIGTERM drain, and so does a terminal that closes; a second one stops at once.
        Any other SIGHUP has it look at its configuration.
        """
        loop = asyncio.get_running_loop()
        for sign in STOP_SIGNALS:
            # What nohup or a shell has set to be ignored stays ignored.
            if signal.getsignal(sign) is not signal.SIG_IGN:
                loop.add_signal_handler(sign, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        beside = [
            asyncio.create_task(self._listen()),
            asyncio.create_task(self._reports.run()),
            asyncio.create_task(self._hangup.watch()),
        ]
        try:
            await self._unless_stopped(self._start_up())
            beside.append(asyncio.create_task(self._reloader.run()))
        except StartFailed as error:
            self._display.trouble(str(error))
            return 1
        else:
            await self._stop.wait()
            return 0
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._shut_down()
            self._calls.close()

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._units.kill()
        self._stop.set()

    def _hung_up(self) -> None:
        if self._hangup.ends():
            self._signalled()
        else:
            self._reloader.ask()

    async def _take(self) -> Work | None:
        """Puts the configuration in force that the files hold now. Raises as ``InForce.change``
        does."""
        read = load_settings(self._config_dir)
        if not self._force.differs(read):
            return None
        work = await self._force.change(
            read, self._units, self._gateways, self._models, self._reports
        )
        return self._until_known(work)

    async def _until_known(self, work: Work) -> list[Line]:
        """Who is told that a model was started shall get an answer from it."""
        lines = await work
        await self._registered()
        return lines

    async def _registered(self) -> set[str]:
        gateways = len(self._units.of("gateway"))
        return await registered(self._workers, self._calls, self._force.plan.gateway, gateways)

    async def _unless_stopped(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not task.done():
                task.cancel()
        if task.done():
            task.result()

    async def _start_up(self) -> None:
        first = [spec for spec in self._force.plan.processes if spec.role == "controller"]
        rest = [spec for spec in self._force.plan.processes if spec.role != "controller"]
        for specs in (first, rest):
            units = [self._units.add(spec) for spec in specs]
            self._show_waiting()
            await asyncio.gather(*(self._settle(unit) for unit in units))
        self._check_any_model()
        known = await self._registered()
        self._display.closing(
            closing_of(
                self._force.settings,
                self._force.plan,
                self._units,
                known,
                str(self._logs),
                self._force.cards(),
                await self._needs_key(),
            )
        )

    async def _needs_key(self) -> bool:
        if self._force.plan.gateway is None:
            return False
        try:
            return await self._calls.needs_key(self._force.plan.gateway)
        except CallFailed:
            return bool(self._force.settings.gateway.api_keys)

    async def _settle(self, unit: Unit) -> None:
        await unit.settle()
        part = next(iter(unit.parts.values()))
        if unit.spec.role not in ("controller", "gateway") or part.state is State.READY:
            return
        reason = part.message
        if part.state is State.RESTARTING:
            reason = f"it died {unit.deaths} times (log: {unit.log.path})"
        raise StartFailed(f"The {unit.spec.name} does not start: {reason}")

    def _check_any_model(self) -> None:
        parts = self._workers()
        usable = self._force.plan.attached or self._force.settings.gateway.llm_base_url
        if parts and not usable and all(part.state is State.FAILED for part in parts):
            raise StartFailed("No model could be started; see the lines above and the log files.")

    def _workers(self) -> list[Part]:
        units = self._units.of("engine", "providers")
        return [part for unit in units for part in unit.parts.values()]

    async def _listen(self) -> None:
        await Channel(self._calls, self._reports, self._models).run()

    async def _shut_down(self) -> None:
        self._display.waiting(())
        self._reporter.closing = True
        seconds = self._force.settings.drain_timeout
        if any(unit.pid for unit in self._units):
            self._display.note(
                f"stopping; answers in flight get up to {seconds:g} s, another Ctrl-C ends them"
            )
        # The gateway first: it takes no more requests, and ends those that the workers still serve.
        for roles in (("gateway",), ("engine", "providers"), ("controller",)):
            await self._units.stop(self._units.of(*roles), seconds)
        self._display.note("stopped")

    def _show_waiting(self) -> None:
        waiting = [unit.spec.name for unit in self._units if not unit.settled]
        self._display.waiting(waiting)

    def _unit(self, spec: ProcessSpec) -> Unit:
        log = LogFile(self._logs / log_name(spec.name))
        return Unit(spec, self._spawn, log, self._changed)

    def _changed(self, unit: Unit) -> None:
        self._reporter.changed(unit)
        self._reports.stir()
        if not self._reporter.closing:
            self._show_waiting()

    async def _spawn(self, spec: ProcessSpec, log: LogFile, heard: Callable[[News], None]) -> Life:
        greeting = pack(Handed(spec.settings, spec.arguments))
        environ = {**self._environ, **spec.env}
        hold = NOTHING if spec.seat is None else self._listening.take(spec.seat)
        return await Process.spawn(spec.argv, environ, log, heard, greeting, hold)


def _environ(settings: Settings, secret: str, quiet: bool) -> Mapping[str, str]:
    """What every child finds in its environment: the same configuration, the secret, this
    package."""
    found = {**os.environ, "OPSGPT_SECRET": secret, LOG_LEVEL: "WARNING" if quiet else "INFO"}
    if settings.origin.config_dir is not None:
        found["OPSGPT_CONFIG_DIR"] = str(settings.origin.config_dir.resolve())
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found["PYTHONPATH"] = os.pathsep.join(paths)
    return found
