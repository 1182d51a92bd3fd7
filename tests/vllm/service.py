"""The service with a model in the real vLLM's hands."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.service import Service, serving, until
from tests.vllm.environment import ensure_environment

MODEL = "tiny-chat"
# Eager, so that it starts in seconds instead of minutes; in float32, so that the answer to a prompt
# is the same in any company.
ARGS = {
    "enforce_eager": True,
    "dtype": "float32",
    "max_num_batched_tokens": 4096,
    "enable_auto_tool_choice": True,
    "tool_call_parser": "hermes",
    # Free to write spaces for ever, so small a model does.
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
ENV = {"VLLM_CPU_KVCACHE_SPACE": "1"}
START_TIMEOUT = 300.0


@contextmanager
def vllm_service(
    folder: Path, path: str = MODEL, *, on_demand: bool = False, **worker: Any
) -> Iterator[Service]:
    """Runs it with the model at ``path``, loaded at the start unless that is ``on_demand``;
    ``worker`` are more options of the model's worker."""
    own = {
        "vllm_python": str(ensure_environment()),
        "engine_args": ARGS,
        "engine_env": ENV,
    }
    fields: dict[str, Any] = {
        "llm_model_dict": {},
        "VLLM_MODEL_DICT": {MODEL: path},
        "FSCHAT_MODEL_WORKERS": {MODEL: own | worker},
    }
    if on_demand:
        fields |= {"LLM_MODEL": "", "LLM_MODELs": []}
    with serving(folder, **fields) as service:
        yield service


async def ready(service: Service, replicas: int = 1) -> None:
    """Waits until it serves."""
    await until(lambda: service.replicas(MODEL) == replicas, START_TIMEOUT)
