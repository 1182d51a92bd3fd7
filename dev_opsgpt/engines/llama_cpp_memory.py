"""Whether a model will fit into this machine's memory, asked before llama.cpp tries.

An operating system that has run out of memory kills the process, without a word to the user.
"""

import xllamacpp

from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.engines.memory import available_memory
from dev_opsgpt.worker.engine import EngineError

_GIB = 2**30


def check_memory(model: Gguf, tokens: int, *, gpu_layers: int, more: int = 0) -> None:
    """Raises ``EngineError`` where weights, cache for ``tokens`` tokens and ``more`` bytes cannot
    fit.

    With a GPU in use nothing is said: what goes where is llama.cpp's decision.
    """
    if uses_gpu(gpu_layers):
        return
    available = available_memory()
    needed = model.size + model.cache_bytes(tokens) + more
    if available is not None and needed > available:
        raise EngineError(
            f"The model {model.path} does not fit into memory: it needs about "
            f"{needed / _GIB:.1f} GiB ({model.cache_bytes(tokens) / _GIB:.1f} of them for "
            f"{tokens} tokens of context in all its slots), {available / _GIB:.1f} GiB are free. "
            "Lower n_ctx or limit_worker_concurrency, or take a smaller model."
        )


def uses_gpu(gpu_layers: int) -> bool:
    """Whether layers of a model will be on a GPU."""
    return gpu_layers != 0 and any(
        "GPU" in str(device.get("type", "")).upper() for device in _devices()
    )


def _devices() -> list[dict[str, object]]:
    found: list[dict[str, object]] = xllamacpp.get_device_info()
    return found
