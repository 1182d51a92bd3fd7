"""Targets that read and write nothing: encoders and rerankers of each engine that serves them, tiny
and of random weights, in a service of their own."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.service import wait_until
from tests.conformance.target import Can, Target
from tests.support.service import Service, serving

START_TIMEOUT = 120.0
MEAN = {"pooling_mode_mean_tokens": True}
ENCODERS = ("llama_cpp_encoder", "transformers_encoder")
RERANKERS = ("llama_cpp_reranker", "transformers_reranker")

_READERS = pytest.StashKey[Service]()


def reader(config: pytest.Config, name: str) -> Target:
    """A target of the one service of readers of a test run, which is started when first asked
    for, and stopped at its end."""
    if _READERS not in config.stash:
        held = contextlib.ExitStack()
        factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
        folder = factory.mktemp("readers")
        config.stash[_READERS] = held.enter_context(_running(folder))
        config.add_cleanup(held.close)
    _, contexts = _makers()
    can = {Can.EMBEDDINGS, Can.TOKEN_IDS} if name in ENCODERS else {Can.RERANK}
    return Target(
        base_url=f"{config.stash[_READERS].gateway}/v1",
        model=name,
        key="EMPTY",
        can=frozenset(can),
        context=contexts[name],
        writes=False,
    )


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[Service]:
    makers, _ = _makers()
    models: dict[str, Any] = {}
    for name, make in makers.items():
        suffix = ".gguf" if name.startswith("llama_cpp") else ""
        models[name] = {"local_model_path": str(make(folder / f"{name}{suffix}"))}
    fields = {"LLM_MODEL": next(iter(models)), "LLM_MODELs": list(models), "DRAIN_TIMEOUT": 1.0}
    with serving(folder, llm_model_dict=models, **fields) as service:
        wanted = dict.fromkeys(models, 1)
        with httpx.Client() as client:
            wait_until(
                lambda: client.get(f"{service.gateway}/health").json()["models"] == wanted,
                START_TIMEOUT,
            )
        yield service


def _makers() -> tuple[dict[str, Callable[[Path], Path]], dict[str, int]]:
    """Who writes each model, and the most tokens that it reads at a time. They need torch, which a
    suite that is run on a server elsewhere does not."""
    from gguf import PoolingType

    from tests.engines.hf.tiny_encoders import POSITIONS, write_cross_encoder, write_encoder
    from tests.engines.random_reranker import CONTEXT, write_reranker

    makers = {
        "llama_cpp_encoder": partial(write_reranker, pooling=PoolingType.MEAN),
        "llama_cpp_reranker": write_reranker,
        "transformers_encoder": partial(write_encoder, pooling=MEAN),
        "transformers_reranker": write_cross_encoder,
    }
    return makers, {name: CONTEXT if name.startswith("llama_cpp") else POSITIONS for name in makers}
