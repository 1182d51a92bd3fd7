"""The engine of a model in Hugging Face format, made from the settings: which class, which
options. torch is asked for only here."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from dev_opsgpt.config import ModelPlan, WorkerSettings
from dev_opsgpt.worker.engine import Engine, EngineError

if TYPE_CHECKING:
    from dev_opsgpt.engines.hf.options import GptqOptions, HfOptions

# What reads each kind of model (``engines/hf/kind.py``): module and class.
_ENGINES = {
    "causal": ("dev_opsgpt.engines.hf.engine", "HfEngine"),
    "encoder": ("dev_opsgpt.engines.hf.encoder", "EncoderEngine"),
    "cross_encoder": ("dev_opsgpt.engines.hf.cross_encoder", "CrossEncoderEngine"),
}
_NEEDED = ("torch", "transformers", "safetensors", "accelerate", "llguidance")
_ENGINE_ARGS = ("prefill_tokens", "cache_tokens")


def make_engine(plan: ModelPlan, share: int | None) -> Engine:
    """The engine of a model, not yet started. ``share`` are the CPU threads that it gets where
    ``n_threads`` does not say. Raises ``EngineError``."""
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        raise EngineError(
            f"{plan.name!r} needs {', '.join(missing)}: pip install -r "
            "requirements-transformers.txt, or pip install 'dev-opsgpt[transformers]'."
        )
    from dev_opsgpt.engines.hf.source import kind_of_model

    options = hf_options(plan, share)
    module, name = _ENGINES[kind_of_model(options.path)]
    made = getattr(import_module(module), name)(options, default_params=plan.worker.default_params)
    return cast(Engine, made)


def hf_options(plan: ModelPlan, share: int | None) -> "HfOptions":
    """What a transformers engine is told about a model. Raises ``EngineError`` for an engine
    argument that it does not have."""
    from dev_opsgpt.engines.hf.options import HfOptions

    worker = plan.worker
    return HfOptions(
        path=plan.path or "",
        context=worker.n_ctx,
        parallel=worker.limit_worker_concurrency,
        device=worker.device,
        dtype=None if worker.dtype == "auto" else worker.dtype,
        num_gpus=worker.num_gpus,
        gpus=worker.gpus,
        max_gpu_memory=worker.max_gpu_memory,
        load_8bit=worker.load_8bit,
        trust_remote_code=worker.trust_remote_code,
        threads=worker.n_threads or share,
        gptq=_gptq(worker),
        **_engine_args(worker.engine_args),
    )


def _gptq(worker: WorkerSettings) -> "GptqOptions | None":
    from dev_opsgpt.engines.hf.options import GptqOptions

    if worker.awq_wbits != 16 or worker.awq_ckpt is not None:
        awq_bits = None if worker.awq_wbits == 16 else worker.awq_wbits
        return GptqOptions(awq_bits, worker.awq_ckpt, worker.awq_groupsize, awq=True)
    if worker.gptq_wbits == 16 and worker.gptq_ckpt is None:
        return None
    bits = None if worker.gptq_wbits == 16 else worker.gptq_wbits
    return GptqOptions(bits, worker.gptq_ckpt, worker.gptq_groupsize, worker.gptq_act_order)


def _engine_args(given: dict[str, Any]) -> dict[str, Any]:
    for key, value in given.items():
        if key not in _ENGINE_ARGS:
            raise EngineError(
                f"engine_args has {key!r}; the transformers engine takes {', '.join(_ENGINE_ARGS)}."
            )
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise EngineError(f"engine_args[{key!r}] is {value!r}, not a number of tokens.")
    return given
