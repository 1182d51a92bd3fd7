"""Folders that hold no model: one line for each, and the other models serve."""

import json
from pathlib import Path

import pytest

from tests.launcher.stack import Place

pytestmark = pytest.mark.slow


def test_a_model_that_cannot_start_leaves_the_others_alone(tmp_path: Path) -> None:
    empty, unknown = tmp_path / "empty", tmp_path / "unknown"
    empty.mkdir()
    unknown.mkdir()
    (unknown / "config.json").write_text(json.dumps({"model_type": "lemma"})[:-1])
    models = {
        "tiny-chat": {"local_model_path": "tiny-chat.gguf"},
        "empty": {"local_model_path": str(empty)},
        "unknown": {"local_model_path": str(unknown)},
        "argued": {"local_model_path": "tiny-chat"},
    }
    place = Place(
        tmp_path,
        llm_model_dict=models,
        LLM_MODELs=list(models),
        workers={"argued": {"engine_args": {"tensor_parallel_size": 2}}},
    )
    with place.start() as service:
        said = service.ready().said
        assert f"✗ empty failed: {empty} has no config.json, so it is no model in" in said
        assert f"✗ unknown failed: {unknown / 'config.json'} cannot be read" in said
        assert "✗ argued failed: engine_args has 'tensor_parallel_size'" in said
        assert service.ask(max_tokens=4).status_code == 200
        for model in ("empty", "unknown"):
            log = (place.logs / f"{model}.log").read_text()
            assert len([line for line in log.splitlines() if " ERROR " in line]) == 1
            assert "Traceback" not in log
