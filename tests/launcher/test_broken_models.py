"""Folders that hold no model: one line for each, and the other models serve."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.launcher.stack import Place, until

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def listing(place: Place) -> dict[str, dict[str, Any]]:
    found = httpx.get(f"{place.base_url}/models").json()["data"]
    return {one["id"]: one for one in found}


def statuses(place: Place) -> dict[str, str]:
    return {name: one.get("status", "") for name, one in listing(place).items()}


def test_a_model_that_cannot_start_leaves_the_others_alone(tmp_path: Path) -> None:
    empty, unknown = tmp_path / "empty", tmp_path / "unknown"
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((ROOT / "llm_models" / "tiny-chat.gguf").read_bytes()[:2_000_000])
    empty.mkdir()
    unknown.mkdir()
    (unknown / "config.json").write_text(json.dumps({"model_type": "lemma"})[:-1])
    models = {
        "tiny-chat": {"local_model_path": "tiny-chat.gguf"},
        "empty": {"local_model_path": str(empty)},
        "unknown": {"local_model_path": str(unknown)},
        "cut": {"local_model_path": str(cut)},
        "gone": {"local_model_path": str(tmp_path / "gone.gguf")},
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
        assert f'{tmp_path / "gone.gguf"}" is neither under llm_models/ nor a path' in said
        assert f"no such model file: {tmp_path / 'gone.gguf'}" in said
        assert f"✗ cut failed: The model file {cut} is truncated" in said
        assert f"✗ empty failed: {empty} has no config.json, so it is no model in" in said
        assert f"✗ unknown failed: {unknown / 'config.json'} cannot be read" in said
        assert "✗ argued failed: engine_args has 'tensor_parallel_size'" in said
        assert service.ask(max_tokens=4).status_code == 200
        told = {
            "empty": f"{empty} has no config.json",
            "cut": f"The model file {cut} is truncated: it has 2000000 bytes",
            "gone": f"no such model file: {tmp_path / 'gone.gguf'}",
        }
        status = place.opsgpt("models", "--status").stdout
        # The gateway hears of it a moment later.
        until(lambda: all(statuses(place)[model] == "failed" for model in told), "it is told")
        listed = listing(place)
        for model, reason in told.items():
            assert f"{model} " in status
            assert reason in status, status
            assert reason in listed[model]["reason"]
            answer = service.ask(model)
            assert answer.status_code == 503
            assert reason in answer.json()["error"]["message"]
            assert ".." not in answer.json()["error"]["message"]
        # One that is added to a service that runs does no harm either, and is told until it is
        # put right.
        models["late"] = {"local_model_path": str(tmp_path / "late.gguf")}
        place.values |= {"llm_model_dict": models, "LLM_MODELs": list(models)}
        reason = f"no such model file: {tmp_path / 'late.gguf'}"
        assert reason in place.reload(ok=False)
        until(lambda: reason in place.opsgpt("models", "--status").stdout, "it is told")
        assert service.ask(max_tokens=4).status_code == 200
        (tmp_path / "late.gguf").symlink_to(ROOT / "llm_models" / "tiny-chat.gguf")
        assert service.ask("late", max_tokens=4).status_code == 200
        assert reason not in place.opsgpt("models", "--status").stdout
        for model in ("empty", "unknown", "cut", "gone"):
            log = (place.logs / f"{model}.log").read_text()
            lines = [line.partition(" ERROR ")[2] for line in log.splitlines()]
            assert all(lines), "each try is one line"
            assert len(set(lines)) == 1
            assert "Traceback" not in log
