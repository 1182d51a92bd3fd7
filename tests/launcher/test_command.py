import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.launcher.command import launch
from dev_opsgpt.launcher.plan import Selection
from tests.launcher.slow_model import serve_slow_model
from tests.launcher.stack import Place


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(models=("gone",)),
        Selection(controller=False, gateway=False, online=False),
    ],
)
def test_what_cannot_be_started_is_told_before_anything_starts(
    tmp_path: Path, selection: Selection, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path, **missing_model())
    assert launch(place.folder, selection) == 1
    assert 'llm_model_dict["gone"]' in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_not_started_here_may_be_missing(tmp_path: Path) -> None:
    place = Place(tmp_path, **missing_model())
    script = "dev_opsgpt/service/llm_api.py"
    with place.start("--openai-api", script=script) as service:
        assert sorted(line.split()[0] for line in service.ready().children()) == [
            "controller",
            "gateway",
        ]


def missing_model() -> dict[str, Any]:
    models = {"gone": {"local_model_path": "/nowhere/gone.gguf"}}
    return {"LLM_MODEL": "gone", "LLM_MODELs": ["gone"], "llm_model_dict": models}


def test_unknown_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(tmp_path / "nowhere", Selection()) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_data_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").touch()
    assert launch(Place(tmp_path, DATA_DIR="taken").folder, Selection(), quiet=True) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "DATA_DIR" in line
    assert str(tmp_path / "taken") in line


def test_ctrl_c_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dev_opsgpt.launcher.command.load_settings", interrupted)
    assert launch(tmp_path, Selection()) == 130
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_service_without_log_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    place = Place(tmp_path, LOG_DIR="taken")
    with place.start("--openai-api", script="dev_opsgpt/service/llm_api.py") as service:
        service.ready()
        assert "LOG_DIR: there will be no log files" in service.said


@pytest.mark.slow
def test_curl_line_shows_a_key_where_one_was_made(tmp_path: Path) -> None:
    with serve_slow_model() as slow:
        place = Place(tmp_path, online={"slow": slow}, LLM_MODEL="slow", LLM_MODELs=["slow"])
        with place.start() as service:
            service.ready()
            key = place.opsgpt("keys", "create").stdout.strip()
        with place.start() as service:
            (line,) = (line for line in service.ready().lines if line.startswith("curl "))
            done = subprocess.run(
                ["sh", "-c", f"{line.strip()} -sS"],
                env={**os.environ, "OPENAI_API_KEY": key},
                capture_output=True,
                text=True,
            )
    assert '"chat.completion.chunk"' in done.stdout, done
