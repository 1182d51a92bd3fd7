"""Models that read only: a BERT that scores pairs, and one that makes vectors."""

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gguf import PoolingType

from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions
from dev_opsgpt.engines.llama_cpp_rerank import sigmoid
from dev_opsgpt.protocol.errors import ContextLengthExceeded, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.protocol.rerank import RerankRequest
from dev_opsgpt.worker.engine import Reranker
from tests.engines.random_reranker import (
    CONTEXT,
    write_deciding_reranker,
    write_reranker,
)

DOCUMENTS = ["a", "hello there", "who", "你好 😀" * 3]


@pytest.fixture
async def reranker(tmp_path: Path) -> AsyncIterator[LlamaCppEngine]:
    path = write_reranker(tmp_path / "reranker.gguf")
    engine = LlamaCppEngine(LlamaOptions(path=path, parallel=2))
    await engine.start()
    yield engine
    await engine.stop()


async def _rerank(
    engine: LlamaCppEngine, query: str, documents: list[str], **fields: Any
) -> tuple[list[float], int]:
    request = RerankRequest(model="m", query=query, documents=documents, **fields)
    return await engine.rerank(request)


async def test_scores(reranker: LlamaCppEngine) -> None:
    assert isinstance(reranker, Reranker)
    scores, tokens = await _rerank(reranker, "who is it?", DOCUMENTS)
    # A pair has three special tokens besides the bytes of both.
    bytes_of = sum(len(text.encode()) + len("who is it?") + 3 for text in DOCUMENTS)
    assert tokens == bytes_of
    assert len(set(scores)) == 4
    assert all(0 < score < 1 for score in scores)
    for text, score in zip(DOCUMENTS, scores, strict=True):
        (alone,), _ = await _rerank(reranker, "who is it?", [text])
        assert alone == pytest.approx(score, abs=1e-3)
    assert reranker.context_length == CONTEXT


def test_a_sigmoid_for_any_number() -> None:
    assert sigmoid(0) == 0.5
    assert sigmoid(math.log(3)) == pytest.approx(0.75)
    assert (sigmoid(-2000), sigmoid(2000)) == (0, 1)
    assert math.isnan(sigmoid(math.nan))


async def test_probabilities_stay_what_they_are(tmp_path: Path) -> None:
    path = write_deciding_reranker(tmp_path / "deciding.gguf")
    engine = LlamaCppEngine(LlamaOptions(path=path, parallel=1))
    await engine.start()
    try:
        texts = [f"number {number}" for number in range(20)]
        scores, _ = await _rerank(engine, "who?", texts)
        assert all(0 <= score <= 1 for score in scores)
        # A sigmoid of these would leave nothing below a half and above three quarters.
        assert min(scores) < 0.45
        assert max(scores) > 0.75
    finally:
        await engine.stop()


async def test_long_documents_are_cut(reranker: LlamaCppEngine) -> None:
    long = "x" * 5000
    scores, tokens = await _rerank(reranker, "who", [long, long[: CONTEXT - 3 - 3]])
    assert tokens == 2 * CONTEXT
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    # A character that the cut would halve is left out.
    scores, _ = await _rerank(reranker, "who", ["ab😀", "ab"], max_tokens_per_doc=4)
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    with pytest.raises(ContextLengthExceeded) as caught:
        await _rerank(reranker, "q" * 300, ["a"])
    assert caught.value.param == "query"


async def test_what_else_it_is_asked(reranker: LlamaCppEngine) -> None:
    with pytest.raises(Unsupported, match="/v1/rerank"):
        await reranker.embed(["a"], EmbeddingRequest(model="m", input="a"))
    chat = ChatRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    )
    with pytest.raises(Unsupported, match="/v1/rerank"):
        await anext(reranker.chat(chat))
    with pytest.raises(Unsupported, match="/v1/rerank"):
        await anext(reranker.complete(CompletionRequest(model="m", prompt="a"), "a"))
    assert reranker.abilities.json_output is False


async def test_a_model_for_vectors_only(tmp_path: Path) -> None:
    path = write_reranker(tmp_path / "bert.gguf", pooling=PoolingType.MEAN)
    engine = LlamaCppEngine(LlamaOptions(path=path, parallel=2))
    await engine.start()
    try:
        request = EmbeddingRequest(model="m", input=["a", "hello"])
        vectors, tokens = await engine.embed(request.inputs, request)
        assert tokens == 3 + 7
        assert math.hypot(*vectors[0]) == pytest.approx(1, abs=1e-3)
        assert await engine.count_tokens("hello") == 7
        with pytest.raises(Unsupported, match="does not rerank"):
            await _rerank(engine, "a", ["b"])
        with pytest.raises(Unsupported, match="/v1/embeddings"):
            await anext(engine.complete(CompletionRequest(model="m", prompt="a"), "a"))
    finally:
        await engine.stop()


async def test_prompts_are_not_known_here(reranker: LlamaCppEngine, model: Path) -> None:
    engine = LlamaCppEngine(LlamaOptions(path=model, parallel=1))
    await engine.start()
    try:
        with pytest.raises(Unsupported) as caught:
            await engine.embed(["a"], EmbeddingRequest(model="m", input="a", prompt_name="query"))
        assert caught.value.param == "prompt_name"
    finally:
        await engine.stop()
