"""A folder of configuration files written by the test."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.config import ConfigError, Settings, load_settings

Configure = Callable[..., Settings]
Refuse = Callable[..., list[str]]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Write the given files and load them with the given environment."""

    def configure(
        model: str | None = None,
        server: str | None = None,
        overlay: Any = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        if model is not None:
            (tmp_path / "model_config.py").write_text(model, encoding="utf-8")
        if server is not None:
            (tmp_path / "server_config.py").write_text(server, encoding="utf-8")
        if overlay is not None:
            text = overlay if isinstance(overlay, str) else json.dumps(overlay)
            (tmp_path / "local_config.json").write_text(text, encoding="utf-8")
        return load_settings(tmp_path, environ or {})

    return configure


@pytest.fixture
def refuse(configure: Configure) -> Refuse:
    """Load a configuration that must be refused; give the problems as lines."""

    def refuse(*args: Any, **kwargs: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            configure(*args, **kwargs)
        assert str(caught.value) == "\n".join(map(str, caught.value.problems))
        assert all(problem.severity == "error" for problem in caught.value.problems)
        return [str(problem) for problem in caught.value.problems]

    return refuse
