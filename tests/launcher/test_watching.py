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


async def test_change_that_goes_on_is_waited_for(folder: Path) -> None:
    path = folder / "model_config.py"
    watch = asyncio.create_task(changed(folder, fingerprint(folder)))
    for number in range(20):
        path.write_text("A = 1\n" * (number + 2))
        await asyncio.sleep(0.01)
        assert not watch.done()
    async with asyncio.timeout(30):
        await watch


async def test_change_that_is_taken_back_is_none(folder: Path) -> None:
    watch = asyncio.create_task(changed(folder, fingerprint(folder)))
    other = folder / "local_config.json"
    other.write_text("{}")
    await asyncio.sleep(0.03)
    other.unlink()
    await asyncio.sleep(0.2)
    assert not watch.done()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
