"""Hot reload: a changed configuration takes effect without a restart.

It is looked at when its files change and when somebody asks (SIGHUP, ``opsgpt reload``). One with
errors is refused as a whole. What runs in place takes it at once; models that start or are replaced
follow side by side, and later looks do not wait for them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from dev_opsgpt.config import ConfigError
from dev_opsgpt.launcher.display import Display
from dev_opsgpt.launcher.outcomes import KEPT, Journal, Line, Outcome
from dev_opsgpt.launcher.watching import Fingerprint, changed, fingerprint
from dev_opsgpt.transport.server import PortInUse

Work = Coroutine[Any, Any, list[Line]]
Take = Callable[[], Awaitable[Work | None]]
"""Reads the configuration and puts it in force; gives the rest of the work, None where nothing has
changed. Raises ``ConfigError`` and ``PortInUse``, and has then changed nothing."""


class Reloader:
    """Looks at the configuration in ``folder`` for as long as it runs. ``known`` is what the files
    were when they were read for the start."""

    def __init__(
        self,
        folder: Path,
        known: Fingerprint,
        take: Take,
        journal: Journal,
        display: Display,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._known = known
        self._take = take
        self._journal = journal
        self._display = display
        self._clock = clock
        self._asked = 0
        self._wanted = asyncio.Event()
        self._outcomes: tuple[Outcome, ...] = ()
        self._number = 0
        self._going_on: set[asyncio.Task[None]] = set()
        self._journal.write(())

    def ask(self) -> None:
        """Has it look as soon as it can."""
        self._asked += 1
        self._wanted.set()

    async def run(self) -> None:
        """Never returns."""
        try:
            while True:
                await self._until_there_is_reason()
                await self._look()
        finally:
            for task in self._going_on:
                task.cancel()
            await asyncio.gather(*self._going_on, return_exceptions=True)

    async def _until_there_is_reason(self) -> None:
        reasons = {
            asyncio.ensure_future(self._wanted.wait()),
            asyncio.ensure_future(changed(self._folder, self._known)),
        }
        try:
            await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for reason in reasons:
                reason.cancel()

    async def _look(self) -> None:
        self._wanted.clear()
        asked, self._number = self._asked, self._number + 1
        number = self._number
        # Before the files are read: what changes while they are is for the next look.
        self._known = fingerprint(self._folder)
        try:
            work = await self._take()
        except ConfigError as error:
            lines = tuple(Line(str(problem), ok=False) for problem in error.problems)
            self._tell(Outcome(number, asked, self._clock(), "refused", lines))
        except PortInUse as error:
            lines = tuple(Line(line, ok=False) for line in str(error).splitlines())
            self._tell(Outcome(number, asked, self._clock(), "refused", lines))
        except Exception as error:
            # Whatever it was, the next look must come.
            self._tell(Outcome(number, asked, self._clock(), "applied", (_broken(error),)))
        else:
            if work is None:
                self._tell(Outcome(number, asked, self._clock(), "nothing"))
                return
            task = asyncio.create_task(self._finish(number, asked, work))
            self._going_on.add(task)
            task.add_done_callback(self._going_on.discard)

    async def _finish(self, number: int, asked: int, work: Work) -> None:
        try:
            lines = tuple(await work)
        except Exception as error:
            # Nobody else would hear of it, and who has asked would wait for ever.
            lines = (_broken(error),)
        self._tell(Outcome(number, asked, self._clock(), "applied", lines))

    def _tell(self, outcome: Outcome) -> None:
        if outcome.state == "nothing":
            self._display.note("the configuration was read again: nothing has changed")
        elif outcome.state == "refused":
            self._display.trouble("the configuration is refused, the one before stays in force")
        else:
            self._display.note("the configuration has changed")
        for line in outcome.lines:
            (self._display.note if line.ok else self._display.trouble)(f"  {line.text}")
        self._outcomes = (*self._outcomes, outcome)[-KEPT:]
        try:
            self._journal.write(self._outcomes)
        except OSError as error:
            self._display.trouble(f"nobody can be told what came of it: {error}")


def _broken(error: Exception) -> Line:
    return Line(f"not all was done: {type(error).__name__}: {error}", ok=False)
