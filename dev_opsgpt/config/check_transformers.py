"""The checks on what is said to the transformers engine; `check_models.py` runs them."""

from collections.abc import Iterator

from dev_opsgpt.config.plan import kind_of, wanted_models
from dev_opsgpt.config.problems import KeyPath, Problem, spell
from dev_opsgpt.config.settings import Settings

_GPTQ = frozenset({"gptq_ckpt", "gptq_wbits", "gptq_groupsize", "gptq_act_order"})
_AWQ = frozenset({"awq_ckpt", "awq_wbits", "awq_groupsize"})
_OWN_KEYS = _GPTQ | _AWQ | {"dtype", "load_8bit", "trust_remote_code", "max_gpu_memory"}


def transformers_keys(settings: Settings) -> Iterator[Problem]:
    """Keys of the transformers engine where they have no effect, or speak against each other."""
    for name in wanted_models(settings):
        if kind_of(settings, name) != "local":
            continue
        entry = settings.workers.get(name)
        local = settings.local_models[name]
        gguf = local.engine == "llama_cpp" or local.local_model_path.endswith(".gguf")
        if gguf and local.engine != "transformers":
            for key in sorted(entry.model_fields_set & _OWN_KEYS if entry else ()):
                message = f'"{name}" is run by llama.cpp, where this key has no effect'
                yield _problem(settings, "warning", name, key, message, "Take it off")
        else:
            yield from _packed(settings, name)


def _packed(settings: Settings, name: str) -> Iterator[Problem]:
    worker = settings.worker(name)
    gptq = worker.gptq_wbits != 16 or worker.gptq_ckpt is not None
    awq = worker.awq_wbits != 16 or worker.awq_ckpt is not None
    if gptq and awq:
        message = f'"{name}" is said to have both GPTQ and AWQ weights'
        yield _problem(
            settings, "error", name, "awq_wbits", message, "Keep the keys of one of them"
        )
    idle = {
        "gptq_groupsize": not gptq and worker.gptq_groupsize != -1,
        "gptq_act_order": not gptq and worker.gptq_act_order,
        "awq_groupsize": not awq and worker.awq_groupsize != -1,
    }
    for key in (key for key, is_idle in idle.items() if is_idle):
        bits = f"{key.partition('_')[0]}_wbits"
        mend = f'Write "{bits}": 4, or take it off'
        message = f"this key has no effect without {bits}"
        yield _problem(settings, "warning", name, key, message, mend)


def _problem(
    settings: Settings, severity: str, name: str, key: str, message: str, mend: str
) -> Problem:
    path: KeyPath = ("FSCHAT_MODEL_WORKERS", name, key)
    return Problem(
        "error" if severity == "error" else "warning",
        settings.origin.source_of(path),
        spell(path),
        message,
        mend,
    )
