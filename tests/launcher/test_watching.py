import asyncio
from pathlib import Path

import pytest

from dev_opsgpt.launcher import watching
from dev_opsgpt.launcher.watching import changed, fingerprint


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.01)
    monkeypatch.setattr(watching, "SETTLED", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model_config.py").write_text("A = 1\n")
    return tmp_path


def test_every_file_that_can_say_something_counts(folder: Path) -> None:
    seen = {fingerprint(folder)}
    for name in ("server_config.py", "local_config.json", "helper.py"):
        (folder / name).write_text("x")
        seen.add(fingerprint(folder))
    (folder / "helper.py").write_text("xy")
    seen.add(fingerprint(folder))
    (folder / "helper.py").unlink()
    seen.add(fingerprint(folder))
    assert len(seen) == 5, "the last one is that before the last but one"
    (folder / "notes.txt").write_text("x")
    (folder / "__pycache__").mkdir()
    assert fingerprint(folder) in seen


def test_other_file_of_the_same_size_and_time_counts(folder: Path) -> None:
    before = fingerprint(folder)
    path = folder / "model_config.py"
    new = folder / "new"
    new.write_text("A = 2\n")
    new.replace(path)
    assert fingerprint(folder) != before


def test_folder_that_is_gone_is_empty(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "gone") == frozenset()


async def test_nothing_happens_until_something_changes(folder: Path) -> None:
    watch = asyncio.create_task(changed(folder, fingerprint(folder)))
    await asyncio.sleep(0.1)
    assert not watch.done()
    (folder / "local_config.json").write_text("{}")
    async with asyncio.timeout(30):
        await watch


class Looks:
    """Stands in for the sleep between two looks: each comes when the test says so."""

    def __init__(self) -> None:
        self.turn: asyncio.Queue[None] = asyncio.Queue()
        self.looked = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.looked.set()
        await self.turn.get()

    async def first(self) -> None:
        """Waits until it has looked."""
        async with asyncio.timeout(30):
            await self.looked.wait()

    async def one(self) -> None:
        """Lets it look once more, and waits until it has."""
        self.looked.clear()
        self.turn.put_nowait(None)
        await self.first()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    found = Looks()
    monkeypatch.setattr("dev_opsgpt.launcher.watching.sleep", found.sleep)
    return found


async def test_change_that_goes_on_is_waited_for(folder: Path, looks: Looks) -> None:
    path = folder / "model_config.py"
    watch = asyncio.create_task(changed(folder, fingerprint(folder)))
    await looks.first()
    for number in range(20):
        path.write_text("A = 1\n" * (number + 2))
        await looks.one()
        assert not watch.done()
    looks.turn.put_nowait(None)
    await watch


async def test_change_that_is_taken_back_is_none(folder: Path, looks: Looks) -> None:
    watch = asyncio.create_task(changed(folder, fingerprint(folder)))
    await looks.first()
    other = folder / "local_config.json"
    other.write_text("{}")
    await looks.one()
    other.unlink()
    for _ in range(3):
        await looks.one()
    assert not watch.done()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
