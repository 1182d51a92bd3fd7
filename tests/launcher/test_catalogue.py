"""What a launcher says of the models that it can load."""

from pathlib import Path
from typing import Any

from dev_opsgpt.config import Settings
from dev_opsgpt.launcher.catalogue import KEEP_ALIVE, bounds, cards
from dev_opsgpt.routing.cards import Bounds, Card


def settings(**keys: Any) -> Settings:
    values: dict[str, Any] = {
        "LLM_MODELs": ["a"],
        "llm_model_dict": {name: {"local_model_path": f"{name}.gguf"} for name in "ab"},
        "ONLINE_LLM_MODEL": {"cloud": {"provider": "P"}},
    }
    return Settings.model_validate(values | keys)


def found(**keys: Any) -> dict[str, Card]:
    return {card.name: card for card in cards(settings(**keys))}


def test_local_models_are_loaded_on_demand() -> None:
    assert set(found()) == {"a", "b"}
    assert found()["b"] == Card(name="b", names=("b",), on_demand=True, keep_alive=KEEP_ALIVE)


def test_what_is_said_of_a_model() -> None:
    default = {"port": 20002, "keep_alive": 9}
    workers = {
        "default": default,
        "a": {"model_names": ["x", "y"], "keep_alive": -1},
        "b": {"load_on_demand": False, "replicas": 2},
    }
    a, b = found(FSCHAT_MODEL_WORKERS=workers).values()
    assert (a.names, a.keep_alive, a.stays) == (("x", "y"), None, False)
    assert (b.keep_alive, b.stays, b.on_demand, b.replicas) == (9.0, True, False, 2)
    hidden = found(FSCHAT_MODEL_WORKERS={"default": default, "b": {"no_register": True}})
    assert not hidden["b"].on_demand, "nobody would find it"


def test_no_request_loads_where_models_were_named() -> None:
    assert not any(card.on_demand for card in cards(settings(), on_demand=False))


def test_sizes_are_those_of_the_weights(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").write_bytes(b"x" * 100)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, size in (("a.safetensors", 30), ("b.safetensors", 20), ("pytorch_model.bin", 50)):
        (folder / name).write_bytes(b"x" * size)
    models = {
        "file": {"local_model_path": str(tmp_path / "one.gguf")},
        "folder": {"local_model_path": str(folder)},
        "hub": {"local_model_path": "owner/name"},
        "sees": {
            "local_model_path": str(tmp_path / "one.gguf"),
            "model_type": "VL",
            "mmproj_path": str(tmp_path / "eye.gguf"),
        },
    }
    (tmp_path / "eye.gguf").write_bytes(b"x" * 7)
    sizes = {name: card.size for name, card in found(llm_model_dict=models, LLM_MODELs=[]).items()}
    assert sizes == {"file": 100, "folder": 50, "hub": 0, "sees": 107}


def test_bounds() -> None:
    assert bounds(settings()) == Bounds()
    assert bounds(settings(MAX_LOADED_MODELS=2, MAX_LOADED_MEMORY="1.5GiB")) == Bounds(2, 3 * 2**29)


def test_what_is_counted_for_the_gpus(tmp_path: Path) -> None:
    for name in ("auto", "cpu", "said"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"x" * 30)
    (tmp_path / "one.gguf").write_bytes(b"x" * 100)
    keys: dict[str, Any] = {
        "llm_model_dict": {
            **{n: {"local_model_path": str(tmp_path / n)} for n in ("auto", "cpu", "said")},
            "gguf": {"local_model_path": str(tmp_path / "one.gguf")},
        },
        "LLM_MODELs": [],
        "FSCHAT_MODEL_WORKERS": {
            "default": {"port": 20002},
            "cpu": {"device": "cpu"},
            "said": {"gpu_memory": "2KiB"},
        },
    }
    plain = {name: (card.size, card.gpu) for name, card in found(**keys).items()}
    assert plain == {"auto": (30, 0), "cpu": (30, 0), "said": (30, 0), "gguf": (100, 0)}
    bound = found(**keys, MAX_LOADED_GPU_MEMORY="1MiB")
    sizes = {name: (card.size, card.gpu) for name, card in bound.items()}
    assert sizes == {"auto": (0, 30), "cpu": (30, 0), "said": (0, 2048), "gguf": (100, 0)}
    assert bounds(settings(MAX_LOADED_GPU_MEMORY="1MiB")) == Bounds(gpu=2**20)
