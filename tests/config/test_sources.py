from collections.abc import Callable
from pathlib import Path

import pytest

from dev_opsgpt.config import ConfigError, Settings, load_settings

Configure = Callable[..., Settings]
Refuse = Callable[..., list[str]]


def test_layers_lowest_to_highest(configure: Configure) -> None:
    settings = configure(
        "LLM_MODEL = 'file'\nLOG_DIR = 'model'\nDRAIN_TIMEOUT = 1",
        "LOG_DIR = 'server'\nFSCHAT_OPENAI_API = {'port': 1, 'retries': 1, 'read_timeout': 1}",
        {"DRAIN_TIMEOUT": 2, "FSCHAT_OPENAI_API": {"port": 2, "retries": 5}},
        {"OPSGPT__FSCHAT_OPENAI_API__PORT": "3"},
    )
    gateway = settings.gateway
    assert (settings.log_dir, settings.drain_timeout) == ("server", 2.0)
    assert (gateway.read_timeout, gateway.retries, gateway.port) == (1.0, 5, 3)
    source_of = settings.origin.source_of
    assert source_of(("FSCHAT_OPENAI_API", "read_timeout")).endswith("server_config.py")
    assert source_of(("FSCHAT_OPENAI_API", "retries")).endswith("local_config.json")
    assert source_of(("FSCHAT_OPENAI_API", "port")).startswith("environment variable OPSGPT__")


def test_an_empty_folder_gives_the_defaults(configure: Configure) -> None:
    settings = configure()
    assert settings.models_to_start() == []
    assert settings.gateway.port == 8888


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {"OPSGPT_CONFIG_DIR": str(tmp_path / "none")})
    (problem,) = caught.value.problems
    assert problem.source == str(tmp_path / "none")
    assert "OPSGPT_CONFIG_DIR" in problem.mend


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        ('{\n"a" 1}', "line 2, column 5", "not JSON"),
        ("[1]", "the whole file", "found list"),
        ("[" * 100_000, "the whole file", "RecursionError"),
    ],
)
def test_malformed_overlay(refuse: Refuse, text: str, key: str, found: str) -> None:
    (line,) = refuse(overlay=text)
    assert "local_config.json" in line
    assert f": {key}: " in line
    assert found in line


def test_overlay_that_is_not_utf8(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "local_config.json").write_bytes(b'{"LOG_DIR": "\xff"}')
    with pytest.raises(ConfigError, match="UnicodeDecodeError"):
        configure()


def test_overlay_with_byte_order_mark(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "local_config.json").write_bytes(b'\xef\xbb\xbf{"LOG_DIR": "x"}')
    assert configure().log_dir == "x"


def test_failures_of_several_files_come_together(refuse: Refuse) -> None:
    lines = refuse(model="A = (", overlay="{")
    assert len(lines) == 2
    assert "local_config.json" in lines[0]
    assert "model_config.py" in lines[1]


def test_unknown_top_level_keys(refuse: Refuse) -> None:
    lines = refuse("LLM_MODELS = ['a']\nllm_model_dicts = {}", overlay={"LOGDIR": "x"})
    assert "LLM_MODELS: there is no such key" in lines[0]
    assert 'Did you mean "LLM_MODELs"?' in lines[0]
    assert 'Did you mean "llm_model_dict"?' in lines[1]
    assert 'Did you mean "LOG_DIR"?' in lines[2]
    assert "local_config.json" in lines[2]


def test_a_constant_of_ones_own_is_told_how_to_be_named(refuse: Refuse) -> None:
    (line,) = refuse("UPSTREAM_ADDRESS_X = 'x'")
    assert "begins with an underscore" in line


def test_variables_of_ones_own(configure: Configure) -> None:
    model = (
        "import os\nfrom typing import Dict\nfrom pathlib import Path\n"
        "_BASE = 'x'\nbase = 'y'\nroot = Path('.')\ndef HELPER(): ...\nLOG_DIR = base\n"
    )
    assert configure(model).log_dir == "y"
