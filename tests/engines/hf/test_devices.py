from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dev_opsgpt.engines.hf import devices
from dev_opsgpt.engines.hf.devices import Placement, choose_dtype, free_on, pick_gpus, place
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.worker.engine import EngineError

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "wanted", "chosen"),
    [([5, 9, 9], 1, [1]), ([5, 9, 9], 2, [1, 2]), ([7, 3], 2, [0, 1]), ([8], 1, [0])],
)
def test_the_gpus_with_the_most_room_are_picked(
    free: list[int], wanted: int, chosen: list[int]
) -> None:
    assert pick_gpus(free, wanted) == chosen


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(EngineError, match="num_gpus is 2, and this process sees 1 GPU"):
        pick_gpus([8], 2)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Two GPUs of 40 GiB, which this machine does not have; gives the caps that are set."""
    caps: dict[int, float] = {}
    free = [10 * GIB, 30 * GIB]
    whole = SimpleNamespace(total_memory=40 * GIB)
    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: len(free),
        "mem_get_info": lambda index: (free[index], 40 * GIB),
        "get_device_properties": lambda index: whole,
        "set_per_process_memory_fraction": lambda part, index: caps.__setitem__(index, part),
        "is_bf16_supported": lambda including_emulation: True,
    }
    for name, stand_in in cuda.items():
        monkeypatch.setattr(devices.torch.cuda, name, stand_in)
    return caps


def test_one_gpu(gpus: dict[int, float]) -> None:
    assert place(HfOptions("m", device="auto")) == Placement(torch.device("cuda", 1))
    assert gpus == {}


def test_a_cap_bounds_the_process_and_what_weights_get(gpus: dict[int, float]) -> None:
    found = place(HfOptions("m", device="cuda", max_gpu_memory="20GiB"))
    assert found.device == torch.device("cuda", 1)
    assert found.room == {1: int(0.85 * 20 * GIB)}
    assert gpus == {1: 0.5}


@pytest.mark.parametrize(("fraction", "left"), [(1.0, 12 * GIB), (0.25, 7 * GIB), (0.05, 0)])
def test_what_is_left_under_a_cap(
    gpus: dict[int, float], monkeypatch: pytest.MonkeyPatch, fraction: float, left: int
) -> None:
    held = {"memory_allocated": 3 * GIB, "memory_reserved": 5 * GIB}
    for name, size in held.items():
        monkeypatch.setattr(devices.torch.cuda, name, lambda gpu, size=size: size)
    cap = "get_per_process_memory_fraction"
    monkeypatch.setattr(devices.torch.cuda, cap, lambda gpu: fraction, raising=False)
    monkeypatch.setattr(devices.torch.cuda, "mem_get_info", lambda gpu: (10 * GIB, 40 * GIB))
    assert free_on(torch.device("cuda", 0)) == left


def test_several_gpus(gpus: dict[int, float]) -> None:
    found = place(HfOptions("m", device="cuda", num_gpus=2))
    assert found == Placement(
        torch.device("cuda", 0), {0: int(8.5 * GIB), 1: int(25.5 * GIB)}, None
    )


def test_types_on_a_gpu(gpus: dict[int, float]) -> None:
    def config(dtype: Any) -> SimpleNamespace:
        text = SimpleNamespace(dtype=dtype)
        return SimpleNamespace(dtype=None, get_text_config=lambda: text)

    cuda = torch.device("cuda")
    assert choose_dtype(None, config(torch.bfloat16), cuda) == torch.bfloat16
    assert choose_dtype(None, config("float16"), cuda) == torch.float16
    assert choose_dtype(None, config(torch.float32), cuda) == torch.float32
    assert choose_dtype(None, config(None), cuda) == torch.float32
    assert choose_dtype("auto", config("bfloat16"), cuda) == torch.bfloat16
    assert choose_dtype("torch.float16", config(None), cuda) == torch.float16


@pytest.mark.parametrize(
    ("size", "amount"),
    [("20GiB", 20 * GIB), ("1.5 GB", 1_500_000_000), ("800MiB", 800 * 2**20), ("4096", 4096)],
)
def test_sizes(gpus: dict[int, float], size: str, amount: int) -> None:
    place(HfOptions("m", device="cuda", max_gpu_memory=size))
    assert gpus[1] == amount / (40 * GIB)


@pytest.mark.parametrize("size", ["", "-1GiB", "0GiB", "20 potatoes", "GiB"])
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(EngineError, match="is not a size such as"):
        place(HfOptions("m", device="cpu", max_gpu_memory=size))
