"""The two local engines score alike: a GGUF, and its weights in transformers."""

from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from transformers import BertConfig, BertForSequenceClassification

from dev_opsgpt.engines.hf.pooling import activation
from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions
from dev_opsgpt.protocol.rerank import RerankRequest
from tests.engines.random_reranker import CLS, CONTEXT, HEADS, LAYERS, SEP, WIDTH, write_reranker

QUERY = "who?"
DOCUMENTS = ["The controller knows.", "hi", "你好 😀"]
_LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
_NAMES = {
    "token_embd": "bert.embeddings.word_embeddings",
    "position_embd": "bert.embeddings.position_embeddings",
    "token_types": "bert.embeddings.token_type_embeddings",
    "token_embd_norm": "bert.embeddings.LayerNorm",
    "cls": "bert.pooler.dense",
    "cls.output": "classifier",
} | {
    f"blk.{layer}.{name}": f"bert.encoder.layer.{layer}.{theirs}"
    for layer in range(LAYERS)
    for name, theirs in _LAYER.items()
}


def twin(path: Path) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=259,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=CONTEXT,
        num_labels=1,
    )
    model = BertForSequenceClassification(config).eval()
    state = {}
    for tensor in GGUFReader(path).tensors:
        stem, _, kind = tensor.name.rpartition(".")
        name = f"{_NAMES[stem]}.{kind}" if stem in _NAMES else f"{_NAMES[tensor.name]}.weight"
        state[name] = torch.tensor(tensor.data.copy())
    told = model.load_state_dict(state, strict=False)
    assert not told.unexpected_keys
    assert set(told.missing_keys) <= {"bert.embeddings.position_ids"}
    return model


async def test_a_gguf_scores_as_its_weights_do_in_transformers(tmp_path: Path) -> None:
    path = write_reranker(tmp_path / "reranker.gguf")
    model = twin(path)
    made = activation(None, path, default=torch.nn.Sigmoid)
    wanted = []
    for text in DOCUMENTS:
        ids = [CLS, *QUERY.encode(), SEP, *text.encode(), SEP]
        with torch.inference_mode():
            wanted.append(made(model(torch.tensor([ids])).logits[0, 0]).item())
    engine = LlamaCppEngine(LlamaOptions(path=path, parallel=1))
    await engine.start()
    try:
        request = RerankRequest(model="m", query=QUERY, documents=list(DOCUMENTS))
        scores, _ = await engine.rerank(request)
        assert scores == pytest.approx(wanted, abs=2e-3)
    finally:
        await engine.stop()
