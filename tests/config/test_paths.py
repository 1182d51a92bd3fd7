from pathlib import Path

import pytest

from dev_opsgpt.config.paths import (
    PROJECT_ROOT,
    base_url,
    find_config_dir,
    is_hub_name,
    is_loopback,
    resolve_model_path,
)


def test_config_dir_by_argument_then_variable_then_project(tmp_path: Path) -> None:
    environ = {"OPSGPT_CONFIG_DIR": "/named"}
    assert find_config_dir(tmp_path, environ) == tmp_path
    assert find_config_dir(None, environ) == Path("/named")
    assert find_config_dir(None, {}) == PROJECT_ROOT / "configs"


@pytest.mark.parametrize("stored", ["THUDM/chatglm-6b", "chatglm-6b"])
def test_model_under_llm_models(tmp_path: Path, stored: str) -> None:
    folder = tmp_path / "llm_models" / stored
    folder.mkdir(parents=True)
    assert resolve_model_path(stored, tmp_path) == folder


def test_owner_may_be_missing_under_llm_models(tmp_path: Path) -> None:
    folder = tmp_path / "llm_models" / "chatglm-6b"
    folder.mkdir(parents=True)
    assert resolve_model_path("THUDM/chatglm-6b", tmp_path) == folder


def test_path_after_llm_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "THUDM" / "chatglm-6b"
    folder.mkdir(parents=True)
    assert resolve_model_path("~/THUDM/chatglm-6b", tmp_path / "root") == folder
    assert resolve_model_path(str(folder), tmp_path / "root") == folder


def test_what_does_not_exist_stays_a_name(tmp_path: Path) -> None:
    assert resolve_model_path("Qwen/Qwen3-8B", tmp_path) == "Qwen/Qwen3-8B"
    assert resolve_model_path("/nowhere/x.gguf", tmp_path) == "/nowhere/x.gguf"


def test_hub_names() -> None:
    assert is_hub_name("THUDM/chatglm-6b")
    for name in ("chatglm-6b", "/a/b", "./a", "~/a", "a/b/c", "a/b.gguf", "a/"):
        assert not is_hub_name(name)


def test_loopback() -> None:
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "", "10.0.0.5", "example.org"):
        assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "advertise", "url"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:80"),
        ("0.0.0.0", None, "http://127.0.0.1:80"),
        ("::", None, "http://[::1]:80"),
        ("0.0.0.0", "10.0.0.5", "http://10.0.0.5:80"),
        ("0.0.0.0", "fd00::5", "http://[fd00::5]:80"),
    ],
)
def test_base_url(host: str, advertise: str | None, url: str) -> None:
    assert base_url(host, 80, advertise) == url
