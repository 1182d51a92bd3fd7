"""The launcher's ear at the controller: takes its commands, and comes back when it was away."""

import asyncio
import logging
from typing import Protocol

from dev_opsgpt.launcher.client import CallFailed, Calls, Command
from dev_opsgpt.launcher.reports import Reports

log = logging.getLogger(__name__)

RECONNECT = 1.0
REPLY_ATTEMPTS = 3


class CommandFailed(Exception):
    """A command cannot be carried out; the message says why."""


class Commands(Protocol):
    """What can be asked of a launcher. All raise ``CommandFailed``, and give a word about what
    was done."""

    async def start_model(self, model: str, replicas: int | None = None) -> str:
        """Starts more replicas of a model, as many as configured where nobody says how many."""
        ...

    async def load_model(self, model: str, demanded: bool) -> str:
        """Has a model serve that may do so already; ``demanded``: because a request needs it."""
        ...

    async def unload_model(self, model: str, address: str | None) -> str:
        """Stops the replica at an address, or every one, until it is needed again."""
        ...

    async def stop_model(self, model: str, address: str | None) -> str:
        """The same, until somebody has it started again. There may be none to stop."""
        ...


class Channel:
    """Runs the controller's commands side by side, until it is cancelled. ``reports`` say who it
    is whenever it connects, and what has changed before it says that a command is carried out."""

    def __init__(self, calls: Calls, reports: Reports, commands: Commands) -> None:
        self._calls = calls
        self._reports = reports
        self._commands = commands
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Never returns."""
        try:
            while True:
                try:
                    async for command in self._calls.commands(self._reports.hello()):
                        task = asyncio.create_task(self._obey(command))
                        self._running.add(task)
                        task.add_done_callback(self._running.discard)
                except CallFailed as error:
                    log.debug("no channel to the controller: %s", error)
                await asyncio.sleep(RECONNECT)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _obey(self, command: Command) -> None:
        try:
            message = await self._carry_out(command)
            ok = True
        except CommandFailed as error:
            ok, message = False, str(error)
        except Exception as error:
            # Whoever waits for the answer must not do so in vain.
            log.exception("%s of %r failed", command.type, command.model)
            ok, message = False, f"the launcher failed: {type(error).__name__}: {error}"
        await self._reports.send()
        await self._reply(command, ok, message)

    async def _carry_out(self, command: Command) -> str:
        commands, model = self._commands, command.model
        match command.type:
            case "start":
                return await commands.start_model(model, command.replicas)
            case "load":
                return await commands.load_model(model, command.demanded)
            case "unload":
                return await commands.unload_model(model, command.address)
            case "stop":
                return await commands.stop_model(model, command.address)
        raise CommandFailed(f"this launcher knows no command {command.type!r}")

    async def _reply(self, command: Command, ok: bool, message: str) -> None:
        for attempt in range(REPLY_ATTEMPTS):
            try:
                await self._calls.reply(command, ok, message)
                return
            except CallFailed as error:
                log.debug("reply %s to %s not heard: %s", attempt, command.id, error)
                await asyncio.sleep(RECONNECT)
