"""The launcher's ear at the controller: takes its commands, and comes back when it was away."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from dev_opsgpt.launcher.client import CallFailed, Calls, Command

log = logging.getLogger(__name__)

RECONNECT = 1.0
REPLY_ATTEMPTS = 3


class CommandFailed(Exception):
    """A command cannot be carried out; the message says why."""


class Commands(Protocol):
    """What can be asked of a launcher. Both raise ``CommandFailed``."""

    async def start_model(self, model: str) -> str:
        """Starts one more replica of a model; a word about it."""
        ...

    async def stop_model(self, model: str, address: str | None) -> str:
        """Stops the replica at an address, or every one; a word about it."""
        ...


class Channel:
    """Runs the controller's commands side by side, until it is cancelled. ``models`` gives the
    names that can be started, whenever it connects."""

    def __init__(
        self, calls: Calls, name: str, models: Callable[[], list[str]], commands: Commands
    ) -> None:
        self._calls = calls
        self._name = name
        self._models = models
        self._commands = commands
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Never returns."""
        try:
            while True:
                try:
                    async for command in self._calls.commands(self._name, self._models()):
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
            if command.type == "start":
                message = await self._commands.start_model(command.model)
            elif command.type == "stop":
                message = await self._commands.stop_model(command.model, command.address)
            else:
                raise CommandFailed(f"this launcher knows no command {command.type!r}")
            ok = True
        except CommandFailed as error:
            ok, message = False, str(error)
        await self._reply(command, ok, message)

    async def _reply(self, command: Command, ok: bool, message: str) -> None:
        for attempt in range(REPLY_ATTEMPTS):
            try:
                await self._calls.reply(command, ok, message)
                return
            except CallFailed as error:
                log.debug("reply %s to %s not heard: %s", attempt, command.id, error)
                await asyncio.sleep(RECONNECT)
