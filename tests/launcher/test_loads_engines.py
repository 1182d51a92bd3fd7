"""Models of the transformers engine that load when they are needed, beside one of llama.cpp."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engines.hf.tiny import tiny_llama
from tests.launcher.stack import Place, Service, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Room for one model; two engines; a folder whose weights are cut off."""
    folder = tmp_path_factory.mktemp("engines")
    small = tiny_llama(folder / "small")
    broken = shutil.copytree(small, folder / "broken")
    cut(broken / "model.safetensors")
    place = Place(
        folder,
        LLM_MODEL="",
        LLM_MODELs=[],
        llm_model_dict={
            "tiny-chat": {"local_model_path": "tiny-chat.gguf"},
            "small": {"local_model_path": str(small)},
            "broken": {"local_model_path": str(broken)},
        },
        MAX_LOADED_MODELS=1,
    )
    with place.start() as found:
        yield found.ready()


def cut(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-5000])


def standing(service: Service, model: str) -> dict[str, Any]:
    found = service.controller("/models")["models"]
    return dict(next(one for one in found if one["name"] == model))


def loaded(service: Service) -> list[str]:
    found = httpx.get(f"{service.place.base_url}/models").json()["data"]
    return sorted(model["id"] for model in found if model["status"] == "loaded")


def test_one_makes_room_for_the_other(service: Service) -> None:
    for model in ("tiny-chat", "small"):
        asked(service, model)
    memory = until(lambda: standing(service, "small")["memory"], "a beat")
    assert memory > 100 << 20, "torch alone takes more"
    asked(service, "tiny-chat")


def asked(service: Service, model: str) -> None:
    answer = service.ask(model, max_tokens=4)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    assert loaded(service) == [model]
    (line,) = (line for line in service.children() if line.startswith("engine"))
    assert model in line.split()


def test_one_that_is_damaged_says_why_and_the_other_serves(service: Service) -> None:
    service.place.values["MAX_LOADED_MODELS"] = 2
    service.place.reload()
    answer = service.ask("broken", max_tokens=4)
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert error["code"] == "load_failed"
    assert "model.safetensors" in error["message"]
    assert int(answer.headers["retry-after"]) >= 1
    assert standing(service, "broken")["phase"] in ("failed", "unloaded")
    assert loaded(service) == ["tiny-chat"], "it was not unloaded for that"
    assert service.ask("tiny-chat", max_tokens=4).status_code == 200
    until(lambda: len(service.roles("engine")) == 1, "the process of the other one has ended")


def test_it_goes_when_it_was_idle(service: Service) -> None:
    workers: dict[str, Any] = service.place.values["FSCHAT_MODEL_WORKERS"]
    workers["small"] = {"keep_alive": 1}
    service.place.reload()
    assert service.ask("small", max_tokens=4).status_code == 200
    until(lambda: standing(service, "small")["phase"] == "unloaded", "it was idle")
    until(lambda: len(service.roles("engine")) == 1, "its process has gone")
    assert loaded(service) == ["tiny-chat"]
