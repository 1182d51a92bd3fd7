import sys
from pathlib import Path

import pytest

from dev_opsgpt.config import ConfigError
from dev_opsgpt.config.python_files import PythonFiles, read_python


def _write(folder: Path, **files: str) -> Path:
    for stem, text in files.items():
        (folder / f"{stem}.py").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "from configs.model_config import LLM_DEVICE",
        "from .model_config import LLM_DEVICE",
        "from model_config import LLM_DEVICE",
        "from configs import model_config; LLM_DEVICE = model_config.LLM_DEVICE",
        "from . import model_config; LLM_DEVICE = model_config.LLM_DEVICE",
        "import configs.model_config; LLM_DEVICE = configs.model_config.LLM_DEVICE",
        "from configs.model_config import *",
    ],
)
def test_one_file_imports_the_other_from_anywhere(tmp_path: Path, line: str) -> None:
    modules = dict(sys.modules)
    server = f"{line}\nFSCHAT_MODEL_WORKERS = {{'default': {{'device': LLM_DEVICE}}}}"
    _write(tmp_path, model_config="LLM_DEVICE = 'cpu'", server_config=server)
    model, server_layer = read_python(tmp_path, {})
    assert server_layer.values["FSCHAT_MODEL_WORKERS"] == {"default": {"device": "cpu"}}
    assert model.values == {"LLM_DEVICE": "cpu"}
    assert "LLM_DEVICE" not in server_layer.values
    assert sys.modules == modules


def test_a_file_of_the_users_own_beside_them(tmp_path: Path) -> None:
    _write(
        tmp_path, keys="KEY = 'k'", model_config="from configs.keys import KEY as _key\nA = _key"
    )
    assert read_python(tmp_path, {})[0].values == {"A": "k"}


def test_ordinary_imports_and_functions_work(tmp_path: Path) -> None:
    function = "def _join(x):\n    return os.path.join(BASE, x)"
    text = f"import os.path\nBASE = 'b'\n{function}\nP = _join('c')"
    _write(tmp_path, model_config=text)
    assert read_python(tmp_path, {})[0].values == {"BASE": "b", "P": "b/c"}


def test_overridden_values_are_in_place_while_a_file_runs(tmp_path: Path) -> None:
    text = "LLM_MODEL: str = 'tiny'\nUSE_FASTCHAT = 'gpt' not in LLM_MODEL\nL = [1]\nL += [2]"
    server = (
        "from configs.model_config import LLM_MODEL\nSEEN = LLM_MODEL\n"
        "def _f():\n    return LLM_MODEL\nIN_FUNCTION = _f()"
    )
    _write(tmp_path, model_config=text, server_config=server)
    overrides = {"LLM_MODEL": "gpt-4", "L": [9]}
    model, server_layer = read_python(tmp_path, overrides)
    assert model.values == {"LLM_MODEL": "gpt-4", "USE_FASTCHAT": False, "L": [9]}
    assert server_layer.values == {"SEEN": "gpt-4", "IN_FUNCTION": "gpt-4"}
    assert overrides == {"LLM_MODEL": "gpt-4", "L": [9]}


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("A = 1\nB = (", "line 2", "SyntaxError"),
        ("A = 1\n\nB = missing", "line 3", "NameError: name 'missing' is not defined"),
        ("import no_such_package_here", "line 1", "ModuleNotFoundError"),
        ("from configs.nothing import X", "line 1", "ImportError: there is no nothing.py"),
        ("raise SystemExit(3)", "line 1", "SystemExit: 3"),
        ("import model_config\nmodel_config.X", "line 2", "AttributeError"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    _write(tmp_path, model_config=text)
    with pytest.raises(ConfigError) as caught:
        read_python(tmp_path, {})
    (problem,) = caught.value.problems
    assert problem.source == str(tmp_path / "model_config.py")
    assert problem.key == where
    assert what in problem.message


def test_the_line_itself_is_not_shown(tmp_path: Path) -> None:
    _write(tmp_path, model_config="KEY = 'hidden' ++ missing")
    with pytest.raises(ConfigError) as caught:
        read_python(tmp_path, {})
    assert "hidden" not in str(caught.value)


def test_a_failure_in_the_other_file_is_told_of_that_file(tmp_path: Path) -> None:
    _write(tmp_path, model_config="A = missing", server_config="from .model_config import A")
    with pytest.raises(ConfigError) as caught:
        PythonFiles(tmp_path, {}).run("server_config")
    assert caught.value.problems[0].source.endswith("model_config.py")


def test_files_may_be_missing(tmp_path: Path) -> None:
    assert read_python(tmp_path, {}) == []


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    _write(tmp_path, model_config="A = 1")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError) as caught:
        read_python(tmp_path, {})
    (problem,) = caught.value.problems
    assert problem.message == "it cannot be read: Permission denied"
    assert "Python" not in problem.mend
