"""Embeddings: a second instance, loaded once, when first asked for."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions
from dev_opsgpt.protocol.errors import ContextLengthExceeded, InvalidRequest
from dev_opsgpt.protocol.openai import EmbeddingRequest


async def _embed(engine: LlamaCppEngine, given: Any, **fields: Any) -> tuple[Any, int]:
    request = EmbeddingRequest(model="m", input=given, **fields)
    return await engine.embed(request.inputs, request)


async def test_vectors(engine: LlamaCppEngine) -> None:
    results = await asyncio.gather(*(_embed(engine, ["hi", "there", "hi"]) for _ in range(5)))
    for vectors, tokens in results:
        assert tokens == 2 + 5 + 2
        assert [len(vector) for vector in vectors] == [64] * 3
        assert math.dist(vectors[0], vectors[2]) < 1e-3
        assert math.dist(vectors[0], vectors[1]) > 0.1
        assert all(abs(math.hypot(*vector) - 1) < 1e-4 for vector in vectors)
    (of_ids,), tokens = await _embed(engine, [104, 105])
    assert tokens == 2
    assert math.dist(of_ids, results[0][0][0]) < 1e-3


@pytest.mark.parametrize("parallel", [1, 3, 5])
async def test_a_vector_is_that_of_its_input_alone(model: Path, parallel: int) -> None:
    engine = LlamaCppEngine(LlamaOptions(path=model, context=2048, parallel=parallel))
    await engine.start()
    try:
        texts = ["ab", "a longer one", "x" * 100, "hi", "y" * 700]
        together, _ = await _embed(engine, texts)
        for text, vector in zip(texts, together, strict=True):
            assert math.dist((await _embed(engine, text))[0][0], vector) < 0.02
    finally:
        await engine.stop()


async def test_dimensions(engine: LlamaCppEngine) -> None:
    (whole,), _ = await _embed(engine, "hi")
    (short,), _ = await _embed(engine, "hi", dimensions=8)
    length = math.hypot(*whole[:8])
    assert short == pytest.approx([value / length for value in whole[:8]])
    assert len((await _embed(engine, "hi", dimensions=64))[0][0]) == 64


@pytest.mark.parametrize(
    ("given", "fields", "kind", "param"),
    [
        ("", {}, InvalidRequest, "input"),
        (["a", ""], {}, InvalidRequest, "input.1"),
        ([[1], [9999]], {}, InvalidRequest, "input.1"),
        ("hi", {"dimensions": 65}, InvalidRequest, "dimensions"),
        ("x" * 2049, {}, ContextLengthExceeded, "input"),
        (["a", "x" * 9000], {}, ContextLengthExceeded, "input"),
    ],
)
async def test_refused(
    engine: LlamaCppEngine,
    given: Any,
    fields: dict[str, Any],
    kind: type[InvalidRequest],
    param: str,
) -> None:
    with pytest.raises(kind) as error:
        await _embed(engine, given, **fields)
    assert error.value.param == param
    assert (await _embed(engine, "x" * 2048))[1] == 2048
