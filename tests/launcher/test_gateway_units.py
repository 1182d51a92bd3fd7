"""Gateways under changed configuration; their lives are the test's."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dev_opsgpt.config import Settings
from dev_opsgpt.launcher.gateways import Gateways
from dev_opsgpt.launcher.handed import Handed, receive
from dev_opsgpt.launcher.link import Applied, Exit, Failed, News, Ready
from dev_opsgpt.launcher.logs import LogFile
from dev_opsgpt.launcher.plan import ProcessSpec, Selection, gateway_index, make_plan
from dev_opsgpt.launcher.unit import Unit
from dev_opsgpt.launcher.units import Units


class Life:
    """A gateway that takes everything, and drains for as long as the test has it."""

    pid = 1

    def __init__(self, stage: "Stage", spec: ProcessSpec, heard: Callable[[News], None]) -> None:
        self.stage = stage
        self.heard = heard
        self.handed: list[Handed] = []
        self.count = word(spec.arguments, "--count")
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if stage.broken:
            heard(Failed("no database", Exit.ENGINE))
            self.code.set_result(Exit.ENGINE)
        else:
            heard(Ready(8888, "http://127.0.0.1:8888"))

    async def wait(self) -> int:
        return await self.code

    def send(self, data: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(data)
            handed = receive(theirs)
        assert handed is not None
        self.handed.append(handed)
        self.count = word(handed.argv, "--count")
        self.heard(Applied(8888, handed.number, self.stage.refusal))

    def terminate(self) -> None:
        if not self.stage.drains and not self.code.done():
            self.code.set_result(0)

    def kill(self) -> None:
        if not self.code.done():
            self.code.set_result(-signal.SIGKILL)


class Stage:
    def __init__(self, folder: Path) -> None:
        self.lives: list[Life] = []
        self.drains = self.broken = False
        self.refusal = ""
        log = LogFile(folder / "a.log")
        self.units = Units(lambda spec: Unit(spec, self.spawn, log, lambda _: None))
        self.gateways = Gateways(self.units)

    async def spawn(self, spec: ProcessSpec, log: LogFile, heard: Callable[[News], None]) -> Life:
        self.lives.append(Life(self, spec, heard))
        return self.lives[-1]

    async def apply(self, count: int, *, replace: bool = False, **keys: object) -> list[str]:
        section = {"gateway_workers": count, **keys}
        settings = Settings.model_validate({"FSCHAT_OPENAI_API": section})
        plan = make_plan(settings, Selection(), "me")
        specs = [spec for spec in plan.processes if spec.role == "gateway"]
        lines = await self.gateways.apply(specs, 5, replace=replace)
        return [line.text for line in lines]

    def alive(self) -> list[Life]:
        return [life for life in self.lives if not life.code.done()]

    def counts(self) -> list[str]:
        return [life.count for life in self.alive()]

    def numbers(self) -> list[int]:
        return [gateway_index(unit.spec) for unit in self.units.staying("gateway")]

    def seats(self) -> list[tuple[int, int]]:
        seats = [unit.spec.seat for unit in self.units.staying("gateway")]
        return [(seat.number, seat.count) for seat in seats if seat is not None]

    async def reach(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.005)


def word(argv: tuple[str, ...], flag: str) -> str:
    return argv[argv.index(flag) + 1]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    found = Stage(tmp_path)
    yield found
    found.drains = False
    for life in found.lives:
        life.kill()
    await found.units.stop(list(found.units), 1)


async def test_in_place(stage: Stage) -> None:
    await stage.apply(2)
    first, second = stage.lives
    assert await stage.apply(2, retries=7) == []
    assert stage.alive() == [first, second]
    assert [life.handed[-1].settings.gateway.retries for life in stage.lives] == [7, 7]
    assert [word(life.handed[-1].argv, "--index") for life in stage.lives] == ["0", "1"]


async def test_one_knows_that_it_is_not_alone_before_another_starts(stage: Stage) -> None:
    await stage.apply(1)
    assert stage.counts() == ["1"]
    await stage.apply(2)
    assert stage.counts() == ["2", "2"]
    stage.drains = True
    await stage.apply(1)
    assert stage.counts() == ["3", "3", "3"], "the others still drain"
    for life in stage.lives[:2]:
        life.code.set_result(0)
    await stage.reach(lambda: stage.counts() == ["1"])


async def test_replaced_ones_have_other_numbers(stage: Stage) -> None:
    await stage.apply(1)
    stage.drains = True
    assert await stage.apply(1, replace=True) == []
    assert stage.numbers() == [1]
    assert stage.counts() == ["2", "2"]
    # In the middle of that, one more of them.
    await stage.apply(2)
    assert stage.numbers() == [1, 2]
    assert stage.counts() == ["3", "3", "3"] or stage.counts() == ["2", "3", "3"]
    stage.lives[0].code.set_result(0)
    await stage.reach(lambda: stage.counts() == ["2", "2"])
    stage.drains = False
    await stage.apply(2, replace=True)
    assert stage.numbers() == [0, 3]


async def test_new_ones_that_do_not_start_leave_the_old_ones(stage: Stage) -> None:
    await stage.apply(1)
    stage.broken = True
    assert await stage.apply(1, replace=True) == [
        "gateway does not start: no database",
        "the gateways that ran before go on as they were",
    ]
    assert stage.alive() == stage.lives[:1]
    await stage.reach(lambda: stage.counts() == ["1"])
    assert stage.numbers() == [0]


async def test_fewer_are_new_ones_that_take_over(stage: Stage) -> None:
    await stage.apply(3)
    assert stage.seats() == [(0, 3), (1, 3), (2, 3)]
    assert await stage.apply(2) == []
    assert stage.seats() == [(0, 2), (1, 2)]
    assert len(stage.lives) == 5
    # Where they do not start, that is made good with whatever comes next.
    stage.broken = True
    assert len(await stage.apply(1)) == 2
    assert stage.seats() == [(0, 2), (1, 2)]
    assert stage.gateways.owed
    stage.broken = False
    assert await stage.apply(2) == []
    assert len(stage.lives) == 8
    assert not stage.gateways.owed


async def test_refusal_is_told(stage: Stage) -> None:
    await stage.apply(1)
    stage.refusal = "ValueError: no"
    assert await stage.apply(1) == ["gateway: ValueError: no"]
