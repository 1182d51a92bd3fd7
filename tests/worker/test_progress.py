"""How far a load has come, and what a process has in memory."""

import subprocess
import sys
from pathlib import Path

from dev_opsgpt.worker.memory import resident
from dev_opsgpt.worker.progress import PAUSE, Progressing, Thinned


def test_what_matters_is_passed_on() -> None:
    told: list[tuple[str, float | None]] = []
    now = 10.0
    tell = Thinned(lambda *news: told.append(news), lambda: now)
    tell("reading", None)
    tell("reading", 0.04)
    tell("reading", 0.5)
    tell("loading", 0.1)
    tell("loading", 0.11)
    now += PAUSE
    tell("loading", 0.12)
    tell("loading", 0.9)
    assert told == [
        ("reading", None),
        ("reading", 0.5),
        ("loading", 0.1),
        ("loading", 0.12),
        ("loading", 0.9),
    ]


def test_an_engine_is_asked_only_if_it_can_tell() -> None:
    class Telling:
        def __init__(self) -> None:
            self.progress = lambda doing, fraction: None

    assert isinstance(Telling(), Progressing)
    assert not isinstance(object(), Progressing)


def test_children_count() -> None:
    before = resident()
    assert before
    code = "x = bytearray(50_000_000); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert (resident() or 0) > before + 40_000_000
        child.kill()


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert resident(tmp_path) is None
