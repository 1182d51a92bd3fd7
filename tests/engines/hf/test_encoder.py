"""Vectors of tiny models of five families, against what transformers says of each text alone."""

import asyncio
import math
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from dev_opsgpt.engines.hf.encoder import EncoderEngine
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.protocol.errors import (
    ContextLengthExceeded,
    InternalError,
    InvalidRequest,
    Unavailable,
    Unsupported,
)
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.worker.engine import EngineError
from tests.engines.hf.tiny_encoders import (
    CLS,
    CONFIGS,
    MASK,
    POSITIONS,
    SEP,
    WIDTH,
    write_encoder,
)

TEXTS = ["The controller knows who is alive.", "hi", "你好，世界 😀", "x" * 100, "ABC def"]
MEAN = {"pooling_mode_mean_tokens": True}
PROMPTS = {"prompts": {"query": "query: ", "doc": "d: "}, "default_prompt_name": "doc"}
TANH = "torch.nn.modules.activation.Tanh"
DENSE = {"in_features": WIDTH, "out_features": 24, "bias": True, "activation_function": TANH}


async def started(folder: Path, **options: Any) -> EncoderEngine:
    engine = EncoderEngine(HfOptions(folder, threads=1, **options))
    await engine.start()
    return engine


async def embed(engine: EncoderEngine, given: Any, **fields: Any) -> np.ndarray:
    request = EmbeddingRequest(model="m", input=given, **fields)
    vectors, tokens = await engine.embed(request.inputs, request)
    assert tokens > 0
    return np.array(vectors)


def near(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() < 1e-5)


@cache
def loaded(folder: Path) -> tuple[Any, Any]:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(folder), model


def alone(folder: Path, text: str) -> torch.Tensor:
    """What the model says of each token of one text, [tokens, width]."""
    tokenizer, model = loaded(folder)
    ids = tokenizer(text)["input_ids"]
    with torch.inference_mode():
        states: torch.Tensor = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return states


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"), pooling=MEAN, prompts=PROMPTS)


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[EncoderEngine]:
    found = await started(folder)
    yield found
    await found.stop()


@pytest.mark.parametrize("kind", CONFIGS)
async def test_a_batch_is_as_each_text_alone(tmp_path: Path, kind: str) -> None:
    write_encoder(tmp_path, kind, pooling=MEAN)
    engine = await started(tmp_path)
    try:
        wanted = np.stack([unit(alone(tmp_path, text).mean(0)).numpy() for text in TEXTS])
        assert near(await embed(engine, TEXTS), wanted)
        # RoBERTa and its kin have two positions less than their table.
        spare = 2 if kind in ("xlm-roberta", "mpnet") else 0
        assert engine.context_length == POSITIONS - spare
        long = "y" * (engine.context_length - 2)
        assert near(await embed(engine, long), unit(alone(tmp_path, long).mean(0)).numpy()[None])
    finally:
        await engine.stop()


POOLED: dict[str, Any] = {
    "cls": lambda states: states[0],
    "max": lambda states: states.amax(0),
    "mean": lambda states: states.mean(0),
    "mean_sqrt_len_tokens": lambda states: states.sum(0) / math.sqrt(len(states)),
    "weightedmean": lambda states: (
        (states * torch.arange(1, len(states) + 1)[:, None]).sum(0)
        / torch.arange(1, len(states) + 1).sum()
    ),
    "lasttoken": lambda states: states[-1],
}


@pytest.mark.parametrize("modes", [*((name,) for name in POOLED), ("cls", "max", "lasttoken")])
async def test_poolings(tmp_path: Path, modes: tuple[str, ...]) -> None:
    write_encoder(tmp_path, pooling={"pooling_mode": list(modes)}, steps=())
    engine = await started(tmp_path)
    try:
        states = [alone(tmp_path, text) for text in TEXTS]
        wanted = [torch.cat([POOLED[mode](one) for mode in modes]) for one in states]
        assert near(await embed(engine, TEXTS), torch.stack(wanted).numpy())
    finally:
        await engine.stop()


@pytest.mark.parametrize("residual", [False, True])
async def test_steps_after_the_pooling(tmp_path: Path, residual: bool) -> None:
    norm = {"dimension": 24}
    steps = [("Dense", DENSE | {"use_residual": residual}), ("LayerNorm", norm), ("Normalize", {})]
    write_encoder(tmp_path, pooling=MEAN, steps=steps)
    engine = await started(tmp_path)
    try:
        dense = read_weights(tmp_path / "2_Dense")
        after = read_weights(tmp_path / "3_LayerNorm")
        wanted = []
        for text in TEXTS:
            mean = alone(tmp_path, text).mean(0)
            vector = torch.tanh(dense["linear.weight"] @ mean + dense["linear.bias"])
            if residual:
                vector = vector + dense["residual.weight"] @ mean
            vector = nn.functional.layer_norm(
                vector, (24,), after["norm.weight"], after["norm.bias"]
            )
            wanted.append(unit(vector))
        assert near(await embed(engine, TEXTS), torch.stack(wanted).numpy())
    finally:
        await engine.stop()


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["bert", "mistral"])
async def test_a_plain_folder(tmp_path: Path, kind: str) -> None:
    """Nothing says how its vectors are made: the mean, or the last token of one that is causal."""
    write_encoder(tmp_path, kind)
    if kind == "mistral":
        config = (tmp_path / "config.json").read_text()
        (tmp_path / "config.json").write_text(config.replace("MistralModel", "MistralForCausalLM"))
    engine = await started(tmp_path)
    try:
        pooled = POOLED["mean" if kind == "bert" else "lasttoken"]
        wanted = torch.stack([unit(pooled(alone(tmp_path, text))) for text in TEXTS])
        assert near(await embed(engine, TEXTS), wanted.numpy())
    finally:
        await engine.stop()


@pytest.mark.parametrize(
    ("kind", "head"), [("bert", AutoModelForMaskedLM), ("mistral", AutoModelForCausalLM)]
)
async def test_weights_with_another_head(tmp_path: Path, kind: str, head: Any) -> None:
    """As many models for vectors are published: with a head that is not used, without a pooler."""
    write_encoder(tmp_path, kind, pooling={"pooling_mode_lasttoken": True})
    head.from_config(CONFIGS[kind]).save_pretrained(tmp_path)
    engine = await started(tmp_path)
    try:
        wanted = torch.stack([unit(alone(tmp_path, text)[-1]) for text in TEXTS])
        assert near(await embed(engine, TEXTS), wanted.numpy())
    finally:
        await engine.stop()


async def test_prompts(engine: EncoderEngine, folder: Path) -> None:
    for name, prompt in ((None, "d: "), ("query", "query: ")):
        wanted = unit(alone(folder, prompt + "hi").mean(0)).numpy()[None]
        assert near(await embed(engine, "hi", prompt_name=name), wanted)
    with pytest.raises(InvalidRequest, match="doc, query") as caught:
        await embed(engine, "hi", prompt_name="no")
    assert caught.value.param == "prompt_name"
    with pytest.raises(Unsupported) as refused:
        await embed(engine, [70, 71], prompt_name="query")
    assert refused.value.param == "prompt_name"


async def test_a_prompt_that_is_no_part_of_the_vector(tmp_path: Path) -> None:
    write_encoder(tmp_path, pooling=MEAN | {"include_prompt": False}, prompts=PROMPTS)
    engine = await started(tmp_path)
    try:
        # [CLS] and the prompt's three bytes are left out.
        wanted = unit(alone(tmp_path, "d: hello")[4:].mean(0)).numpy()[None]
        assert near(await embed(engine, "hello"), wanted)
    finally:
        await engine.stop()


async def test_lower_case_and_length(tmp_path: Path) -> None:
    said = {"do_lower_case": True, "max_seq_length": 20}
    write_encoder(tmp_path, pooling=MEAN, sentence=said)
    engine = await started(tmp_path)
    try:
        assert near(await embed(engine, "HELLO"), await embed(engine, "hello"))
        # The name of a special token stays one.
        ids = [CLS, MASK, *b"hi", SEP]
        assert near(await embed(engine, "[MASK]HI"), await embed(engine, ids))
        assert engine.context_length == engine.abilities.context_length == 20
    finally:
        await engine.stop()
    # Who runs it may go beyond that, as far as there are positions.
    engine = await started(tmp_path, context=1000)
    assert engine.context_length == POSITIONS
    await engine.stop()


async def test_token_ids(engine: EncoderEngine, folder: Path) -> None:
    ids = [CLS, 70, 71, 72, SEP]
    text = bytes_to_text(ids[1:-1])
    found = await embed(engine, [ids, ids[1:-1]])
    assert near(found[:1], unit(alone(folder, text).mean(0)).numpy()[None])
    # They are taken as they are: nothing is put around them.
    assert not near(found[1:], found[:1])
    assert near(await embed(engine, ids), found[:1])


def bytes_to_text(ids: list[int]) -> str:
    return bytes(ids).decode()


async def test_dimensions(engine: EncoderEngine) -> None:
    whole, short = await embed(engine, TEXTS), await embed(engine, TEXTS, dimensions=8)
    wanted = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    assert near(short, wanted)
    assert near(await embed(engine, TEXTS, dimensions=WIDTH), whole)


async def test_dimensions_that_the_model_names(tmp_path: Path) -> None:
    write_encoder(tmp_path, pooling=MEAN, prompts={"truncate_dim": 8})
    engine = await started(tmp_path)
    try:
        whole = await embed(engine, TEXTS, dimensions=WIDTH)
        assert whole.shape == (len(TEXTS), WIDTH)
        short = await embed(engine, TEXTS)
        assert near(short, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True))
    finally:
        await engine.stop()


@pytest.mark.parametrize("key", ["processor_kwargs", "tokenizer_args"])
async def test_a_length_that_is_said_as_the_tokenizer_s(tmp_path: Path, key: str) -> None:
    write_encoder(tmp_path, pooling=MEAN, sentence={key: {"model_max_length": 20}})
    engine = await started(tmp_path)
    assert engine.context_length == 20
    await engine.stop()


@pytest.mark.parametrize(
    ("given", "fields", "kind", "param"),
    [
        ("", {}, InvalidRequest, "input"),
        (["a", ""], {}, InvalidRequest, "input.1"),
        ([[1], [9999]], {}, InvalidRequest, "input.1"),
        ([9999], {}, InvalidRequest, "input"),
        ("hi", {"dimensions": WIDTH + 1}, InvalidRequest, "dimensions"),
        (["a", "a", "a", "x" * POSITIONS], {}, ContextLengthExceeded, "input.3"),
        ([[1] * (POSITIONS + 1)], {}, ContextLengthExceeded, "input"),
    ],
)
async def test_refused(
    engine: EncoderEngine,
    given: Any,
    fields: dict[str, Any],
    kind: type[InvalidRequest],
    param: str,
) -> None:
    with pytest.raises(kind) as caught:
        await embed(engine, given, **fields)
    assert caught.value.param == param


async def test_many_requests_at_once(engine: EncoderEngine) -> None:
    texts = [f"number {n} " + "x" * (n % 9) * (n % 7) for n in range(60)]
    together = await asyncio.gather(*(embed(engine, texts[n : n + 3]) for n in range(0, 60, 3)))
    assert engine._batcher is not None
    assert engine._batcher.batches < 20, "requests join one pass"
    one_by_one = [await embed(engine, text) for text in texts]
    assert near(np.concatenate(together), np.concatenate(one_by_one))


async def test_it_writes_nothing(engine: EncoderEngine) -> None:
    chat = ChatRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    )
    for steps in (
        engine.chat(chat),
        engine.complete(CompletionRequest(model="m", prompt="a"), "a"),
    ):
        with pytest.raises(Unsupported, match="/v1/embeddings") as caught:
            await anext(steps)
        assert caught.value.param == "model"
    with pytest.raises(Unsupported):
        await engine.count_tokens(chat)
    assert await engine.count_tokens("hello") == 7
    assert await engine.count_tokens([1, 2]) == 2
    assert engine.abilities.tools is engine.abilities.json_output is False


async def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    write_encoder(tmp_path, pooling=MEAN)
    engine = await started(tmp_path)
    try:
        with torch.no_grad():
            engine._ready.reader.model.get_input_embeddings().weight[97] = math.nan
        with pytest.raises(InternalError):
            await embed(engine, "aaa")
        assert np.isfinite(await embed(engine, "bbb")).all()
    finally:
        await engine.stop()


async def test_start_and_stop(folder: Path) -> None:
    engine = EncoderEngine(HfOptions(folder))
    told: list[tuple[str, float]] = []
    engine.progress = lambda text, done: told.append((text, done))
    assert engine.context_length == 0
    with pytest.raises(Unavailable):
        await embed(engine, "a")
    await engine.start()
    assert told[-1] == ("reading weights", 1.0)
    with pytest.raises(EngineError, match="loaded already"):
        await engine.start()
    await engine.stop()
    with pytest.raises(Unavailable):
        await embed(engine, "a")
    await engine.start()
    assert (await embed(engine, "a")).shape == (1, WIDTH)
    await engine.stop()


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([("Dense", DENSE | {"in_features": 7})], "takes vectors of 7 numbers"),
        ([("Dense", DENSE | {"activation_function": "os.system"})], "os.system is not known"),
        ([("Dense", DENSE | {"module_input_name": "token_embeddings"})], "module_input_name"),
    ],
)
async def test_steps_that_cannot_be(tmp_path: Path, steps: Any, told: str) -> None:
    write_encoder(tmp_path, pooling=MEAN, steps=steps)
    with pytest.raises(EngineError, match=told):
        await started(tmp_path)


async def test_a_folder_without_a_step_s_weights(tmp_path: Path) -> None:
    write_encoder(tmp_path, pooling=MEAN, steps=[("Dense", DENSE)])
    (tmp_path / "2_Dense/model.safetensors").unlink()
    with pytest.raises(EngineError, match="2_Dense has no weights"):
        await started(tmp_path)


async def test_folders_that_are_damaged(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "no", "no folder"), (tmp_path, "no config.json")):
        with pytest.raises(EngineError, match=told):
            await started(path)
    write_encoder(tmp_path, pooling=MEAN)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])
    with pytest.raises(EngineError, match="truncated"):
        await started(tmp_path)


async def test_a_cache_that_there_is_none_of(folder: Path) -> None:
    with pytest.raises(EngineError, match="cache_tokens"):
        await started(folder, cache_tokens=100)


async def test_other_types(folder: Path, engine: EncoderEngine) -> None:
    wanted = await embed(engine, TEXTS)
    for options in ({"load_8bit": True}, {"dtype": "bfloat16"}):
        other = await started(folder, **options)
        found = await embed(other, TEXTS)
        await other.stop()
        assert (found * wanted).sum(axis=1).min() > 0.999


async def test_as_sentence_transformers(tmp_path: Path) -> None:
    """Where it is installed: what it writes is read, and what it says is said."""
    pytest.importorskip("sentence_transformers", exc_type=ImportError)
    from sentence_transformers import SentenceTransformer

    steps = [("Dense", DENSE), ("Normalize", {})]
    (tmp_path / "plain").mkdir()
    write_encoder(tmp_path / "plain", pooling=MEAN, steps=steps, prompts=PROMPTS)
    theirs = SentenceTransformer(str(tmp_path / "plain"), device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    engine = await started(tmp_path / "theirs")
    try:
        assert near(await embed(engine, TEXTS), theirs.encode(TEXTS))
        wanted = theirs.encode(TEXTS, prompt_name="query")
        assert near(await embed(engine, TEXTS, prompt_name="query"), wanted)
    finally:
        await engine.stop()
