"""When a configuration is looked at, and what is told of it; what a look does is the test's."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dev_opsgpt.config import ConfigError, Problem
from dev_opsgpt.launcher import watching
from dev_opsgpt.launcher.display import Display
from dev_opsgpt.launcher.outcomes import KEPT, Journal, Line, Outcome
from dev_opsgpt.launcher.reload import Reloader, Work
from dev_opsgpt.launcher.watching import fingerprint
from dev_opsgpt.transport.server import PortInUse


class Stage:
    """A reloader, and the looks it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "configs"
        self.folder.mkdir()
        self.journal = Journal(folder)
        self.looks = 0
        self.found: Callable[[], Work | None] = lambda: None
        self.text = io.StringIO()
        display = Display(Console(file=self.text, width=200))
        known = fingerprint(self.folder)
        self.reloader = Reloader(self.folder, known, self.take, self.journal, display, lambda: 7.0)

    async def take(self) -> Work | None:
        self.looks += 1
        return self.found()

    async def outcomes(self, count: int) -> list[Outcome]:
        async with asyncio.timeout(30):
            while len(found := self.journal.read()) < count:
                await asyncio.sleep(0.01)
        return list(found)


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(watching, "INTERVAL", 0.01)
    monkeypatch.setattr(watching, "SETTLED", 0.02)
    found = Stage(tmp_path)
    task = asyncio.create_task(found.reloader.run())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def work(*lines: Line, wait: asyncio.Event | None = None) -> Callable[[], Work]:
    async def carry_out() -> list[Line]:
        if wait is not None:
            await wait.wait()
        return list(lines)

    return carry_out


async def test_nobody_asks_and_nothing_changes(stage: Stage) -> None:
    await asyncio.sleep(0.1)
    assert stage.looks == 0
    assert stage.journal.read() == ()


async def test_files_that_change_are_looked_at_once(stage: Stage) -> None:
    (stage.folder / "model_config.py").write_text("A = 1")
    assert await stage.outcomes(1) == [Outcome(1, 0, 7.0, "nothing")]
    await asyncio.sleep(0.1)
    assert stage.looks == 1


async def test_who_asks_is_answered(stage: Stage) -> None:
    stage.found = work(Line("a: started"), Line("b: not started", ok=False))
    stage.reloader.ask()
    (outcome,) = await stage.outcomes(1)
    assert (outcome.asked, outcome.state, outcome.ok) == (1, "applied", False)
    assert "·   a: started\n✗   b: not started\n" in stage.text.getvalue()


async def test_later_look_does_not_wait_for_an_earlier_one(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.found = work(Line("slow"), wait=gate)
    stage.reloader.ask()
    async with asyncio.timeout(30):
        while not stage.looks:
            await asyncio.sleep(0.01)
    stage.found = work(Line("quick"))
    stage.reloader.ask()
    (first,) = await stage.outcomes(1)
    assert (first.number, first.asked) == (2, 2)
    gate.set()
    assert [outcome.number for outcome in await stage.outcomes(2)] == [2, 1]


def refuse(error: Exception) -> Callable[[], Work]:
    def find() -> Work:
        raise error

    return find


PROBLEM = Problem("error", "model_config.py", "LLM_MODEL", "no", "Mend it")


@pytest.mark.parametrize(
    ("error", "state", "lines"),
    [
        (ConfigError([PROBLEM, PROBLEM]), "refused", [str(PROBLEM)] * 2),
        (PortInUse("one\ntwo"), "refused", ["one", "two"]),
        (RuntimeError("odd"), "applied", ["not all was done: RuntimeError: odd"]),
    ],
)
async def test_what_goes_wrong_is_told_and_the_next_look_comes(
    stage: Stage, error: Exception, state: str, lines: list[str]
) -> None:
    stage.found = refuse(error)
    stage.reloader.ask()
    (outcome,) = await stage.outcomes(1)
    assert (outcome.state, outcome.ok) == (state, False)
    assert [line.text for line in outcome.lines] == lines
    assert all(line in stage.text.getvalue() for line in lines)
    stage.found = lambda: None
    stage.reloader.ask()
    assert len(await stage.outcomes(2)) == 2


async def test_work_that_breaks_is_told(stage: Stage) -> None:
    async def broken() -> list[Line]:
        raise OSError("disk")

    stage.found = broken
    stage.reloader.ask()
    (outcome,) = await stage.outcomes(1)
    assert [line.text for line in outcome.lines] == ["not all was done: OSError: disk"]


async def test_only_so_many_outcomes_are_kept(stage: Stage) -> None:
    for number in range(KEPT + 3):
        stage.reloader.ask()
        async with asyncio.timeout(30):
            while stage.looks <= number:
                await asyncio.sleep(0.005)
    found: Any = await stage.outcomes(KEPT)
    assert [outcome.number for outcome in found][-1] == KEPT + 3
    assert len(found) == KEPT
