"""Where a model goes and as which type: devices, several GPUs, a cap on their memory."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.worker.engine import EngineError

# Of a GPU's free memory, or of the cap, this much is for weights; the rest is for what is computed
# and for the keys and values of the texts.
_FOR_WEIGHTS = 0.85
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_DTYPES: Mapping[str, torch.dtype] = {
    **{"float32": torch.float32, "fp32": torch.float32, "float": torch.float32},
    **{"bfloat16": torch.bfloat16, "bf16": torch.bfloat16},
    **{"float16": torch.float16, "fp16": torch.float16, "half": torch.float16},
}


@dataclass(frozen=True)
class Placement:
    """``device`` holds the model, or its first part. ``room`` is set where the model is spread:
    bytes for weights on each GPU, by number; what does not fit stays in the machine's memory.
    ``cap`` is the most that this process takes of each GPU, in bytes."""

    device: torch.device
    room: Mapping[int, int] | None = None
    cap: int | None = None


def place(options: HfOptions) -> Placement:
    """Chooses the device, or the GPUs. Raises ``EngineError`` for what is not there."""
    device = _device(options.device)
    if device.type != "cuda":
        if options.max_gpu_memory is not None and device.type == "cpu":
            _bytes_of(options.max_gpu_memory)
        return Placement(device)
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    total = [
        torch.cuda.get_device_properties(index).total_memory
        for index in range(torch.cuda.device_count())
    ]
    chosen = pick_gpus(free, options.num_gpus)
    cap = None if options.max_gpu_memory is None else _bytes_of(options.max_gpu_memory)
    if cap is not None:
        # Whatever goes wrong, the other processes on these GPUs keep their share.
        for index in chosen:
            torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total[index]), index)
    first = torch.device("cuda", chosen[0])
    if len(chosen) == 1 and cap is None:
        return Placement(first)
    room = {
        index: int(_FOR_WEIGHTS * min(free[index], free[index] if cap is None else cap))
        for index in chosen
    }
    return Placement(first, room, cap)


def pick_gpus(free: Sequence[int], wanted: int) -> list[int]:
    """The numbers of the ``wanted`` GPUs with the most free memory (``free``, in bytes), lowest
    number first. Raises ``EngineError`` where there are not as many."""
    if wanted > len(free):
        there = f"{len(free)} GPU{'s' if len(free) != 1 else ''}"
        raise EngineError(f"num_gpus is {wanted}, and this process sees {there}.")
    by_room = sorted(range(len(free)), key=lambda index: (-free[index], index))
    return sorted(by_room[:wanted])


def free_on(gpu: torch.device) -> int:
    """Bytes of a GPU that this process may still take: what nobody has, and what torch holds for it
    and does not use, but no more than the process's cap leaves."""
    free, total = torch.cuda.mem_get_info(gpu)
    allocated = torch.cuda.memory_allocated(gpu)
    capped = int(total * torch.cuda.get_per_process_memory_fraction(gpu)) - allocated
    return max(0, min(free + torch.cuda.memory_reserved(gpu) - allocated, capped))


def _device(asked: str) -> torch.device:
    """The device of that name; ``auto`` takes an accelerator where there is one."""
    there: Mapping[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "xpu": lambda: hasattr(torch, "xpu") and torch.xpu.is_available(),
        "npu": lambda: hasattr(torch, "npu") and bool(torch.npu.is_available()),
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if asked == "auto":
        return torch.device(next(name for name, is_there in there.items() if is_there()))
    if asked not in there:
        raise EngineError(f"device {asked!r} is none of auto, {', '.join(there)}.")
    if not there[asked]():
        built = ""
        if asked == "cuda" and torch.version.cuda is None:
            built = ", and the torch that is installed was built without CUDA"
        raise EngineError(f'device is "{asked}", and this machine has none{built}; use "auto".')
    return torch.device(asked)


def choose_dtype(asked: str | None, config: Any, device: torch.device) -> torch.dtype:
    """The type of the weights in memory: as asked, else that of the checkpoint (``config`` is the
    model's ``PretrainedConfig``) where the device computes in it well, else float32."""
    if asked not in (None, "auto"):
        return dtype_of(str(asked))
    stored = getattr(config, "dtype", None)
    if stored is None:
        stored = getattr(config.get_text_config(), "dtype", None)
    if isinstance(stored, str):
        stored = _DTYPES.get(stored, torch.float32)
    if stored is torch.bfloat16 and _computes_bfloat16(device):
        return torch.bfloat16
    if stored is torch.float16 and device.type != "cpu":
        return torch.float16
    return torch.float32


def dtype_of(name: str) -> torch.dtype:
    """The type of that name. Raises ``EngineError``."""
    try:
        return _DTYPES[name.removeprefix("torch.")]
    except KeyError:
        raise EngineError(f"dtype {name!r} is none of auto, float32, bfloat16, float16.") from None


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    # On a CPU that does not, each operation converts to float32 and back.
    mkldnn: Any = torch.backends.mkldnn
    asks = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return asks is not None and bool(mkldnn.is_available() and asks())


def _bytes_of(size: str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", size.upper())
    if found is None or float(found[1]) == 0:
        raise EngineError(f'max_gpu_memory {size!r} is not a size such as "20GiB".')
    return int(float(found[1]) * _UNITS[found[2] or ""])
