"""One process that is kept alive: started, started again when it dies, stopped when asked."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from dev_opsgpt.launcher.backoff import Backoff
from dev_opsgpt.launcher.handed import Handed, pack
from dev_opsgpt.launcher.link import Applied, Exit, Failed, News, Progress, Ready, Stopped
from dev_opsgpt.launcher.logs import LogFile
from dev_opsgpt.launcher.plan import PlannedWorker, ProcessSpec

# As many deaths before it ever served, and nobody waits for it any longer.
GIVE_UP_AFTER = 3
# Beyond the drain: what a process needs to say goodbye and to free its engine.
STOP_MARGIN = 5.0


class State(StrEnum):
    """Where a part of the service stands."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class Part:
    """What one process serves on one port; a controller and a gateway have no ``worker``. One that
    is ``leaving`` drains, and is as good as gone; ``code`` is the ``Exit`` of the last failure.
    While it starts, ``doing`` says what it is at and ``fraction`` how much of that is done;
    ``died`` is how its process ended the last time, in words that follow the process's name."""

    port: int
    address: str = ""
    worker: PlannedWorker | None = None
    state: State = State.STARTING
    message: str = ""
    leaving: bool = False
    code: int = 0
    doing: str = ""
    fraction: float | None = None
    died: str = ""


class Life(Protocol):
    """What a unit needs of a running process (``Process`` is one)."""

    pid: int

    async def wait(self) -> int:
        """Its exit code, when all of it is gone."""
        ...

    def send(self, data: bytes) -> None:
        """Writes to its end of the link."""
        ...

    def terminate(self) -> None:
        """Asks it to end."""
        ...

    def kill(self) -> None:
        """Ends it."""
        ...


Spawn = Callable[[ProcessSpec, LogFile, Callable[[News], None]], Awaitable[Life]]


def verdict(code: int, *, served: bool, stopping: bool) -> Literal["stopped", "failed", "restart"]:
    """What follows from an exit. Pure.

    A child that never served and says why is not tried again: it would say the same. One that has
    served was right once, so its reason may pass.
    """
    if stopping or code == Exit.STOPPED:
        return "stopped"
    if not served and code in (Exit.PORT_IN_USE, Exit.ENGINE, Exit.CONFIG):
        return "failed"
    return "restart"


class Unit:
    """Keeps one process alive. ``changed`` is called after every change of ``parts``; ``deaths``
    counts those since it served last."""

    def __init__(
        self, spec: ProcessSpec, spawn: Spawn, log: LogFile, changed: Callable[["Unit"], None]
    ) -> None:
        self.spec = spec
        self.log = log
        workers = {worker.listen.port: worker for worker in spec.workers}
        self.parts = {
            listen.port: Part(listen.port, worker=workers.get(listen.port))
            for listen in spec.listens
        }
        self.deaths = 0
        self.started = 0.0
        self._spawn = spawn
        self._changed = changed
        self._backoff = Backoff()
        self._life: Life | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()
        self._served_at: float | None = None
        self._served = False
        # What this life has said of why it cannot go on.
        self._reason = ""
        self._number = 0
        self._applied = Applied(0, 0)

    @property
    def pid(self) -> int | None:
        """The process's id while it lives."""
        return self._life.pid if self._life else None

    @property
    def leaving(self) -> bool:
        """Whether it has been told to stop."""
        return self._stopping.is_set()

    @property
    def settled(self) -> bool:
        """Whether each part serves, has failed, was stopped, or dies too often to wait for it."""
        if not self._served and self.deaths >= GIVE_UP_AFTER:
            return True
        waiting = (State.STARTING, State.RESTARTING)
        return not any(part.state in waiting for part in self.parts.values())

    def start(self) -> None:
        """Begins; returns at once. ``started`` is when, in monotonic seconds."""
        self.started = time.monotonic()
        self._task = asyncio.create_task(self._run())

    async def settle(self) -> None:
        """Waits until it is ``settled``."""
        await self.until(lambda: self.settled)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until a condition on this unit holds."""
        while not holds():
            self._news.clear()
            await self._news.wait()

    async def apply(self, spec: ProcessSpec, seconds: float) -> str:
        """Hands the running process another configuration and waits until it has taken it. Gives
        the reason in one line where it has not, else nothing. Lives to come begin with it."""
        self.spec = spec
        life = self._life
        if life is None:
            return ""
        self._number += 1
        number = self._number
        life.send(pack(Handed(spec.settings, spec.arguments, number)))
        try:
            async with asyncio.timeout(seconds):
                await self.until(lambda: self._applied.number >= number or self._life is not life)
        except TimeoutError:
            return f"it has not taken the new configuration within {seconds:g} s"
        return self._applied.message if self._life is life else ""

    async def stop(self, drain_timeout: float) -> None:
        """Drains the process and ends it, the hard way after ``drain_timeout`` and a bit."""
        self.leave()
        if self._task is None:
            return
        if self._life is not None:
            self._life.terminate()
        done, _ = await asyncio.wait([self._task], timeout=drain_timeout + STOP_MARGIN)
        if not done:
            self.kill()
            await self._task

    def kill(self) -> None:
        """Ends the process and all that it started, at once and for good."""
        self.leave()
        if self._life is not None:
            self._life.kill()

    def leave(self) -> None:
        """Counts as good as gone from now on; ``stop`` is to follow."""
        self._stopping.set()
        for part in self.parts.values():
            part.leaving = True

    async def _run(self) -> None:
        while True:
            code = await self._live()
            fate = verdict(code, served=self._served, stopping=self._stopping.is_set())
            if fate == "stopped":
                self._all(State.STOPPED, "")
                return
            self.deaths = 0 if self._served_at is not None else self.deaths + 1
            if fate == "failed":
                self._all(State.FAILED, _last_words(self.log, code))
                return
            pause = self._backoff.pause(self._healthy())
            died = f"{describe(code)}: {self._reason}" if self._reason else describe(code)
            for part in self.parts.values():
                part.died = died
            self._all(State.RESTARTING, f"{died}; starts again in {pause:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            if self._stopping.is_set():
                self._all(State.STOPPED, "")
                return

    async def _live(self) -> int:
        self.log.forget()
        self._served_at = None
        self._reason = ""
        try:
            self._life = await self._spawn(self.spec, self.log, self._heard)
        except OSError as error:
            self.log.write(f"cannot start {self.spec.argv[0]}: {error}\n".encode())
            return Exit.CONFIG
        if self._stopping.is_set():
            self._life.terminate()
        try:
            return await self._life.wait()
        finally:
            self._life = None

    def _heard(self, news: News) -> None:
        if isinstance(news, Failed):
            self._reason = news.message
        if isinstance(news, Failed) and news.port == 0:
            for part in self.parts.values():
                part.message = news.message
        elif (known := self.parts.get(news.port)) is not None:
            self._one(known, news)
        self._tell()

    def _one(self, part: Part, news: News) -> None:
        if isinstance(news, Ready):
            part.state, part.address, part.message = State.READY, news.address, ""
            part.doing, part.fraction = "", None
            self._served = True
            if self._served_at is None:
                self._served_at = time.monotonic()
        elif isinstance(news, Progress):
            part.doing, part.fraction = news.doing, news.fraction
        elif isinstance(news, Failed):
            part.message, part.code = news.message, news.code
            # The only part's failure is the process's, and its exit code decides what follows.
            if len(self.parts) > 1:
                part.state = State.FAILED
        elif isinstance(news, Applied):
            self._applied = news
        else:
            assert isinstance(news, Stopped)  # noqa: S101 - for the type checker
            part.state = State.STOPPED
            if part.worker is not None:
                self.spec = self.spec.without(part.worker.address)

    def _all(self, state: State, message: str) -> None:
        for part in self.parts.values():
            if part.state in (State.STOPPED, State.FAILED):
                continue
            keep = state is State.FAILED and part.message
            part.state, part.message = state, part.message if keep else message
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._changed(self)

    def _healthy(self) -> float:
        return 0.0 if self._served_at is None else time.monotonic() - self._served_at


def describe(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        return f"was killed by signal {-code}"
    if code == Exit.PORT_IN_USE:
        return "found its port in use"
    return f"ended with code {code}"


def _last_words(log: LogFile, code: int) -> str:
    return log.tail[-1] if log.tail else describe(code)
