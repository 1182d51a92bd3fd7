"""What a model is for, as far as its files tell."""

from pathlib import Path
from typing import Literal

from dev_opsgpt.config import ModelPlan
from dev_opsgpt.engines.hf.source import kind_of_model
from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.launcher.plan import engine_of
from dev_opsgpt.worker.engine import EngineError

Purpose = Literal["chat", "embeddings", "rerank"]


def purpose_of(plan: ModelPlan) -> Purpose:
    """Chats, unless the files that are here say that the model makes nothing but vectors or
    scores."""
    if plan.kind not in ("local", "vllm") or not isinstance(plan.path, Path):
        return "chat"
    try:
        if engine_of(plan) == "llama_cpp":
            return _of_gguf(Gguf(plan.path))
        if plan.path.is_dir():
            return _OF_KIND[kind_of_model(plan.path)]
    except EngineError:
        # Whoever loads it will say so.
        return "chat"
    return "chat"


_OF_KIND: dict[str, Purpose] = {
    "causal": "chat",
    "encoder": "embeddings",
    "cross_encoder": "rerank",
}


def _of_gguf(model: Gguf) -> Purpose:
    if model.reranks:
        return "rerank"
    return "chat" if model.generates else "embeddings"
