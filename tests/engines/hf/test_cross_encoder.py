"""Scores of tiny cross-encoders, against what transformers says of each pair alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dev_opsgpt.engines.hf.cross_encoder import CrossEncoderEngine
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.protocol.errors import ContextLengthExceeded, Unsupported
from dev_opsgpt.protocol.openai import EmbeddingRequest
from dev_opsgpt.protocol.rerank import RerankRequest
from dev_opsgpt.worker.engine import EngineError, Reranker
from tests.engines.hf.tiny_encoders import POSITIONS, write_cross_encoder

QUERY = "who is alive?"
DOCUMENTS = ["The controller knows.", "hi", "你好，世界 😀", "x" * 60, "ABC"]
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = "torch.nn.modules.activation.Tanh"


async def started(folder: Path) -> CrossEncoderEngine:
    engine = CrossEncoderEngine(HfOptions(folder, threads=1))
    await engine.start()
    return engine


async def rerank(
    engine: CrossEncoderEngine, documents: list[Any], query: str = QUERY, **fields: Any
) -> tuple[list[float], int]:
    return await engine.rerank(RerankRequest(model="m", query=query, documents=documents, **fields))


def logits(folder: Path, documents: list[str], query: str = QUERY) -> torch.Tensor:
    """The model's number for each pair, read alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        found = [
            model(**tokenizer(query, text, return_tensors="pt")).logits[0, 0] for text in documents
        ]
    return torch.stack(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross"))


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[CrossEncoderEngine]:
    found = await started(folder)
    yield found
    await found.stop()


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "modernbert", "mistral"])
async def test_scores(tmp_path: Path, kind: str) -> None:
    write_cross_encoder(tmp_path, kind)
    engine = await started(tmp_path)
    try:
        scores, tokens = await rerank(engine, DOCUMENTS)
        wanted = logits(tmp_path, DOCUMENTS).sigmoid().tolist()
        assert scores == pytest.approx(wanted, abs=1e-5)
        # A pair has three special tokens besides the bytes of both.
        assert tokens == sum(len(text.encode()) + len(QUERY) + 3 for text in DOCUMENTS)
    finally:
        await engine.stop()


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        # The numbers as they are have no range, so that none is to be named for it.
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, torch.sigmoid),
        ({"sbert_ce_default_activation_function": TANH}, torch.tanh),
        ({"sbert_ce_default_activation_function": None}, torch.sigmoid),
    ],
)
async def test_the_activation_that_the_model_names(
    tmp_path: Path, fields: dict[str, Any], wanted: Any
) -> None:
    write_cross_encoder(tmp_path, **fields)
    engine = await started(tmp_path)
    try:
        scores, _ = await rerank(engine, DOCUMENTS)
        assert scores == pytest.approx(wanted(logits(tmp_path, DOCUMENTS)).tolist(), abs=1e-5)
    finally:
        await engine.stop()


async def test_scores_far_from_zero_keep_their_order(tmp_path: Path) -> None:
    write_cross_encoder(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        model.classifier.bias.add_(25)  # where float32 has nothing left between a score and 1
    model.save_pretrained(tmp_path)
    engine = await started(tmp_path)
    try:
        scores, _ = await rerank(engine, DOCUMENTS)
        assert all(0.99 < score < 1 for score in scores)
        wanted = logits(tmp_path, DOCUMENTS).argsort().tolist()
        assert sorted(range(len(scores)), key=scores.__getitem__) == wanted
    finally:
        await engine.stop()


async def test_what_is_cut(engine: CrossEncoderEngine, folder: Path) -> None:
    room = POSITIONS - len(QUERY) - 3
    (long, fits), tokens = await rerank(engine, ["y" * 5000, "y" * room])
    assert long == pytest.approx(fits, abs=1e-6)
    assert tokens == 2 * POSITIONS
    (short, fits), _ = await rerank(engine, ["abcdef", "abc"], max_tokens_per_doc=3)
    assert short == pytest.approx(fits, abs=1e-6)
    # A query is not cut, however long it is beside its document.
    (found,), _ = await rerank(engine, ["ab"], query="q" * 120)
    assert found == pytest.approx(logits(folder, ["ab"], "q" * 120).sigmoid().item(), abs=1e-5)
    with pytest.raises(ContextLengthExceeded) as caught:
        await rerank(engine, ["a"], query="q" * (POSITIONS - 3))
    assert caught.value.param == "query"


async def test_many_at_once(engine: CrossEncoderEngine) -> None:
    assert isinstance(engine, Reranker)
    documents = [f"number {n} " + "x" * (n % 60) for n in range(40)]
    both, other = await asyncio.gather(
        rerank(engine, documents), rerank(engine, documents[::-1], query="another")
    )
    assert both[0] == pytest.approx(
        [(await rerank(engine, [one]))[0][0] for one in documents], abs=1e-5
    )
    assert len(other[0]) == 40


async def test_what_else_it_is_asked(engine: CrossEncoderEngine) -> None:
    with pytest.raises(Unsupported, match="/v1/rerank"):
        await engine.embed(["a"], EmbeddingRequest(model="m", input="a"))


@pytest.mark.parametrize(
    ("labels", "fields", "told"),
    [
        (3, {}, "3 labels"),
        (1, {"sentence_transformers": {"activation_fn": "os.system"}}, "os.system is not known"),
    ],
)
async def test_what_cannot_rerank(
    tmp_path: Path, labels: int, fields: dict[str, Any], told: str
) -> None:
    write_cross_encoder(tmp_path, labels=labels, **fields)
    with pytest.raises(EngineError, match=told):
        await started(tmp_path)


async def test_as_sentence_transformers(tmp_path: Path) -> None:
    """Where it is installed: what it writes is read, and what it says is said."""
    pytest.importorskip("sentence_transformers", exc_type=ImportError)
    from sentence_transformers import CrossEncoder

    (tmp_path / "plain").mkdir()
    write_cross_encoder(tmp_path / "plain", sentence_transformers={"activation_fn": IDENTITY})
    theirs = CrossEncoder(str(tmp_path / "plain"), device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    engine = await started(tmp_path / "theirs")
    try:
        scores, _ = await rerank(engine, DOCUMENTS)
        wanted = torch.sigmoid(torch.tensor(theirs.predict([(QUERY, t) for t in DOCUMENTS])))
        assert scores == pytest.approx(wanted.tolist(), abs=1e-5)
    finally:
        await engine.stop()
