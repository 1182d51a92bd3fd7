import runpy
import sys
from pathlib import Path

import pytest

from dev_opsgpt.launcher.plan import Selection
from dev_opsgpt.service import llm_api

SERVERS = {"controller": True, "gateway": True}
NO_SERVERS = {"controller": False, "gateway": False}


def chosen(*flags: str) -> Selection:
    return llm_api.selection(llm_api.parser().parse_args(flags))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], Selection()),
        (["--llm-api"], Selection()),
        (["-o"], Selection(local=False, online=False)),
        (["--openai-api"], Selection(local=False, online=False)),
        (["-m"], Selection(**NO_SERVERS, online=False)),
        (["-p"], Selection(**NO_SERVERS, local=False)),
        (["-o", "-m"], Selection(online=False)),
        (["-m", "-p"], Selection(**NO_SERVERS)),
        (["-i"], Selection(local=False)),
        (["--lite", "-p"], Selection(**NO_SERVERS, local=False)),
        (["-n", "a", "b", "-n", "c"], Selection(models=("a", "b", "c"))),
        (["-m", "-n", "a"], Selection(**NO_SERVERS, online=False, models=("a",))),
        (
            ["-m", "-c", "http://10.0.0.1:20001/"],
            Selection(**NO_SERVERS, online=False, controller_address="http://10.0.0.1:20001"),
        ),
    ],
)
def test_selection(flags: list[str], expected: Selection) -> None:
    assert chosen(*flags) == expected


@pytest.mark.parametrize(
    "flags", [["-i", "-m"], ["-o", "-n", "a"], ["-c", "10.0.0.1:20001"], ["--unknown"]]
)
def test_contradictions_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        llm_api.main(flags)
    assert "usage:" in capsys.readouterr().err


def test_quiet_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(
        "dev_opsgpt.launcher.command.launch",
        lambda config, selection, quiet: seen.extend([config, quiet]) or 0,
    )
    assert llm_api.main(["-q", "--config", "there"]) == 0
    assert seen == [Path("there"), True]


def test_runs_as_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["llm_api.py", "--help"])
    monkeypatch.setattr(sys, "path", [str(Path(llm_api.__file__).parent), *sys.path[1:]])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(llm_api.__file__, run_name="__main__")
    assert sys.path[0] == str(Path(__file__).parents[2])
