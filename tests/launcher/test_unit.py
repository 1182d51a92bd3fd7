"""One unit with lives that the test plays."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dev_opsgpt.config import Settings
from dev_opsgpt.launcher import unit as unit_module
from dev_opsgpt.launcher.handed import Handed, receive
from dev_opsgpt.launcher.link import Applied, Exit, Failed, News, Ready, Stopped
from dev_opsgpt.launcher.logs import LogFile
from dev_opsgpt.launcher.plan import Listen, PlannedWorker, ProcessSpec
from dev_opsgpt.launcher.unit import State, Unit, describe, verdict


class Played:
    """A life whose end the test decides."""

    pid = 1

    def __init__(self, spec: ProcessSpec, heard: Callable[[News], None]) -> None:
        self.spec = spec
        self.tell = heard
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.asked = False
        self.sent: list[Handed] = []

    async def wait(self) -> int:
        return await self.code

    def end(self, code: int) -> None:
        if not self.code.done():
            self.code.set_result(code)

    def send(self, data: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(data)
            handed = receive(theirs)
        assert handed is not None
        self.sent.append(handed)

    def terminate(self) -> None:
        self.asked = True
        self.end(0)

    def kill(self) -> None:
        self.end(-signal.SIGKILL)


class Stage:
    """A unit, and the lives it has led."""

    def __init__(self, log: LogFile, *ports: int) -> None:
        workers = tuple(
            PlannedWorker(f"m{p}", (f"m{p}",), "engine", Listen("h", p, "k"), f"http://h:{p}")
            for p in ports
        )
        self.lives: list[Played] = []
        self.unit = Unit(
            ProcessSpec("it", "engine", ("run",), workers=workers), self.spawn, log, lambda _: None
        )

    async def spawn(self, spec: ProcessSpec, log: LogFile, heard: Callable[[News], None]) -> Played:
        self.lives.append(Played(spec, heard))
        return self.lives[-1]

    async def life(self, number: int) -> Played:
        async with asyncio.timeout(30):
            while len(self.lives) < number:
                await asyncio.sleep(0.005)
        return self.lives[number - 1]

    def states(self) -> list[State]:
        return [part.state for part in self.unit.parts.values()]

    async def reach(self, *states: State) -> None:
        async with asyncio.timeout(30):
            await self.unit.until(lambda: self.states() == list(states))


@pytest.fixture
async def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Stage]]:
    monkeypatch.setattr("dev_opsgpt.launcher.backoff.FIRST_PAUSE", 0.01)
    stages: list[Stage] = []

    def start(*ports: int) -> Stage:
        stages.append(Stage(LogFile(tmp_path / "a.log"), *(ports or (1,))))
        stages[-1].unit.start()
        return stages[-1]

    yield start
    for stage in stages:
        await stage.unit.stop(1)


@pytest.mark.parametrize(
    ("code", "served", "stopping", "fate"),
    [
        (0, False, False, "stopped"),
        (0, True, False, "stopped"),
        (1, True, True, "stopped"),
        (-9, False, True, "stopped"),
        (Exit.ENGINE, False, False, "failed"),
        (Exit.CONFIG, False, False, "failed"),
        (Exit.PORT_IN_USE, False, False, "failed"),
        (Exit.ENGINE, True, False, "restart"),
        (Exit.PORT_IN_USE, True, False, "restart"),
        (1, False, False, "restart"),
        (-9, True, False, "restart"),
    ],
)
def test_verdict(code: int, served: bool, stopping: bool, fate: str) -> None:
    assert verdict(code, served=served, stopping=stopping) == fate


def test_exit_codes_in_words() -> None:
    assert describe(-9) == "was killed by signal 9"
    assert describe(3) == "ended with code 3"


async def test_ready_with_its_address(make: Callable[..., Stage]) -> None:
    stage = make()
    assert not stage.unit.settled
    (await stage.life(1)).tell(Ready(1, "http://real:1"))
    await stage.reach(State.READY)
    assert stage.unit.parts[1].address == "http://real:1"
    assert stage.unit.settled


async def test_death_is_followed_by_another_life(make: Callable[..., Stage]) -> None:
    stage = make()
    first = await stage.life(1)
    first.tell(Ready(1, "http://h:1"))
    first.end(-9)
    await stage.reach(State.RESTARTING)
    assert "killed by signal 9; starts again in" in stage.unit.parts[1].message
    second = await stage.life(2)
    second.tell(Ready(1, "http://h:1"))
    await stage.reach(State.READY)
    second.tell(Failed("the file is gone", Exit.ENGINE, 1))
    second.end(Exit.ENGINE)
    await stage.reach(State.RESTARTING)
    assert stage.unit.deaths == 0, "it had served"
    code = int(Exit.ENGINE)
    assert stage.unit.parts[1].died == f"ended with code {code}: the file is gone"
    (await stage.life(3)).end(1)
    async with asyncio.timeout(5):
        await stage.unit.until(lambda: stage.unit.deaths == 1)


async def test_reason_of_a_failure_is_kept(make: Callable[..., Stage]) -> None:
    stage = make()
    first = await stage.life(1)
    first.tell(Failed("the file is damaged", Exit.ENGINE, 1))
    first.end(Exit.ENGINE)
    await stage.reach(State.FAILED)
    assert stage.unit.parts[1].message == "the file is damaged"
    assert len(stage.lives) == 1


async def test_failure_of_the_whole_child_is_that_of_each_part(make: Callable[..., Stage]) -> None:
    stage = make(1, 2)
    first = await stage.life(1)
    first.tell(Failed("bad configuration", Exit.CONFIG))
    first.end(Exit.CONFIG)
    await stage.reach(State.FAILED, State.FAILED)
    assert {part.message for part in stage.unit.parts.values()} == {"bad configuration"}


async def test_one_part_fails_the_other_serves(make: Callable[..., Stage]) -> None:
    stage = make(1, 2)
    first = await stage.life(1)
    first.tell(Failed("no key", Exit.ENGINE, 1))
    first.tell(Ready(2, "http://h:2"))
    await stage.reach(State.FAILED, State.READY)
    assert stage.unit.settled


async def test_part_that_left_is_not_in_the_next_life(make: Callable[..., Stage]) -> None:
    stage = make(1, 2)
    first = await stage.life(1)
    first.tell(Ready(1, "http://h:1"))
    first.tell(Ready(2, "http://h:2"))
    first.tell(Stopped(1))
    await stage.reach(State.STOPPED, State.READY)
    first.end(-11)
    assert (await stage.life(2)).spec.argv == ("run", "--model", "m2", "2")
    assert stage.states() == [State.STOPPED, State.RESTARTING]


async def test_three_early_deaths_are_waited_for_no_longer(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make()
    for number in range(1, unit_module.GIVE_UP_AFTER + 1):
        assert not stage.unit.settled
        (await stage.life(number)).end(1)
    async with asyncio.timeout(30):
        await stage.unit.settle()
    assert stage.states() == [State.RESTARTING]
    await stage.life(unit_module.GIVE_UP_AFTER + 1)


async def test_exit_with_0_is_a_stop_that_was_asked_for(make: Callable[..., Stage]) -> None:
    stage = make()
    (await stage.life(1)).end(0)
    await stage.reach(State.STOPPED)
    await asyncio.sleep(0.05)
    assert len(stage.lives) == 1


async def test_stop_asks_first(make: Callable[..., Stage]) -> None:
    stage = make()
    life = await stage.life(1)
    await stage.unit.stop(1)
    assert life.asked
    assert stage.states() == [State.STOPPED]


async def test_stop_does_not_wait_for_ever(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_module, "STOP_MARGIN", 0.05)
    monkeypatch.setattr(Played, "terminate", lambda self: None)
    stage = make()
    life = await stage.life(1)
    await stage.unit.stop(0.05)
    assert life.code.result() == -signal.SIGKILL


async def test_stop_in_a_pause_is_at_once(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dev_opsgpt.launcher.backoff.FIRST_PAUSE", 600.0)
    stage = make()
    (await stage.life(1)).end(1)
    await stage.reach(State.RESTARTING)
    async with asyncio.timeout(30):
        await stage.unit.stop(1)
    assert stage.states() == [State.STOPPED]


async def test_command_that_does_not_exist_is_a_failure(tmp_path: Path) -> None:
    async def spawn(spec: ProcessSpec, log: LogFile, heard: Callable[[News], None]) -> Played:
        raise FileNotFoundError(2, "No such file or directory")

    spec = ProcessSpec("it", "gateway", ("nothing",), Listen("h", 1, "k"))
    unit = Unit(spec, spawn, LogFile(tmp_path / "a.log"), lambda _: None)
    unit.start()
    await unit.settle()
    assert "cannot start nothing" in unit.parts[1].message


async def test_running_process_takes_another_configuration(make: Callable[..., Stage]) -> None:
    stage = make(5)
    life = await stage.life(1)
    life.tell(Ready(5, "http://real:5"))
    spec = replace(stage.unit.spec, settings=Settings(log_dir="other"))
    applying = asyncio.create_task(stage.unit.apply(spec, 5))
    async with asyncio.timeout(30):
        while not life.sent:
            await asyncio.sleep(0.005)
    assert life.sent[0].settings == spec.settings
    assert not applying.done()
    life.tell(Applied(5, life.sent[0].number))
    assert await applying == ""
    applying = asyncio.create_task(stage.unit.apply(spec, 5))
    async with asyncio.timeout(30):
        while len(life.sent) < 2:
            await asyncio.sleep(0.005)
    life.tell(Applied(5, life.sent[1].number, "not that"))
    assert await applying == "not that"


async def test_process_that_does_not_answer_has_not_taken_it(make: Callable[..., Stage]) -> None:
    stage = make(5)
    (await stage.life(1)).tell(Ready(5, "http://real:5"))
    reason = await stage.unit.apply(stage.unit.spec, 0.05)
    assert reason == "it has not taken the new configuration within 0.05 s"


async def test_process_that_dies_meanwhile_begins_with_it(make: Callable[..., Stage]) -> None:
    stage = make(5)
    life = await stage.life(1)
    life.tell(Ready(5, "http://real:5"))
    spec = replace(stage.unit.spec, settings=Settings(log_dir="other"))
    applying = asyncio.create_task(stage.unit.apply(spec, 5))
    async with asyncio.timeout(30):
        while not life.sent:
            await asyncio.sleep(0.005)
    life.end(-9)
    assert await applying == ""
    assert (await stage.life(2)).spec.settings == spec.settings


async def test_process_that_is_told_to_stop_is_leaving(make: Callable[..., Stage]) -> None:
    stage = make(5)
    (await stage.life(1)).tell(Ready(5, "http://real:5"))
    assert not stage.unit.leaving
    stage.unit.leave()
    assert stage.unit.leaving
    assert stage.unit.parts[5].leaving
