"""The checks on models that vLLM serves; `check.py` runs them with the others."""

from collections.abc import Callable, Iterator, Mapping

from dev_opsgpt.config.models import WorkerSettings
from dev_opsgpt.config.plan import kind_of, wanted_models
from dev_opsgpt.config.problems import KeyPath, Problem, spell
from dev_opsgpt.config.settings import Settings

# What vLLM is told in another way, and what reads the checkpoint by itself.
_WITHOUT_EFFECT: Mapping[str, str] = {
    "max_gpu_memory": 'Use "engine_args": {"gpu_memory_utilization": 0.8}, a share of each GPU',
    "load_8bit": 'Use "engine_args": {"quantization": "bitsandbytes"}',
    "n_gpu_layers": 'Use "engine_args": {"cpu_offload_gb": ...}, or remove it',
    "gptq_ckpt": "Remove it; vLLM reads how a checkpoint is quantised from its config",
    "gptq_wbits": "Remove it; vLLM reads how a checkpoint is quantised from its config",
    "awq_ckpt": "Remove it; vLLM reads how a checkpoint is quantised from its config",
    "awq_wbits": "Remove it; vLLM reads how a checkpoint is quantised from its config",
}


def _without_effect(settings: Settings) -> Iterator[Problem]:
    """Keys that were written for one model and say nothing to vLLM."""
    for name in _served(settings):
        entry = settings.workers.get(name)
        written = set() if entry is None else entry.model_fields_set
        default = WorkerSettings()
        for key, mend in _WITHOUT_EFFECT.items():
            if key in written and getattr(entry, key) != getattr(default, key):
                path: KeyPath = ("FSCHAT_MODEL_WORKERS", name, key)
                source = settings.origin.source_of(path)
                message = "this key has no effect on a model that vLLM serves"
                yield Problem("warning", source, spell(path), message, mend)


def _sizes(settings: Settings) -> Iterator[Problem]:
    """Parallel sizes that need more GPUs than there are; vLLM built for a CPU has no GPUs."""
    for name in _served(settings):
        worker = settings.worker(name)
        sizes = [_size(worker, f"{kind}_parallel_size") for kind in ("tensor", "pipeline")]
        listed = [one for one in (worker.gpus or "").split(",") if one.strip()]
        written = "num_gpus" in worker.model_fields_set
        there = len(listed) or (worker.num_gpus if written else 0)
        if worker.device == "cpu" or not there or sizes[0] * sizes[1] <= there:
            continue
        path: KeyPath = ("FSCHAT_MODEL_WORKERS", name, "engine_args")
        message = f"these parallel sizes need {sizes[0] * sizes[1]} GPUs, and there are {there}"
        mend = 'Make them smaller, or give more with "num_gpus" or "gpus"'
        yield Problem("error", settings.origin.source_of(path), spell(path), message, mend)


def _size(worker: WorkerSettings, name: str) -> int:
    """One that is no size is told by vLLM's worker, with all of its arguments."""
    given = worker.engine_args.get(name, 1)
    return given if isinstance(given, int) and given >= 1 else 1


def _served(settings: Settings) -> Iterator[str]:
    return (name for name in wanted_models(settings) if kind_of(settings, name) == "vllm")


VLLM_CHECKS: tuple[Callable[[Settings], Iterator[Problem]], ...] = (_without_effect, _sizes)
"""Each gives the problems it sees in the settings; none raises."""
