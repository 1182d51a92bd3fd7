"""Embedding models and cross-encoders of a few thousand random weights, as sentence-transformers
lays them out. Written by hand, so that it need not be installed.

The tokenizer has the 256 bytes and BERT's special tokens: a text's tokens are its bytes, behind
[CLS] and before [SEP].
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    MistralConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
)

from tests.engines.random_model import byte_tokens

PAD, CLS, SEP, MASK = 256, 257, 258, 259
VOCABULARY = 260
POSITIONS = 130
WIDTH = 32
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.3,
    "pad_token_id": PAD,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
}
CONFIGS: dict[str, Any] = {
    "bert": BertConfig(**_SIZES),
    # Their positions begin behind the padding's, so its id must be small.
    "xlm-roberta": XLMRobertaConfig(**_SIZES | {"pad_token_id": 1}),
    "mpnet": MPNetConfig(**_SIZES | {"pad_token_id": 1}),
    "modernbert": ModernBertConfig(
        **_SIZES | {"local_attention": 16, "cls_token_id": CLS, "sep_token_id": SEP}
    ),
    "mistral": MistralConfig(**_SIZES, num_key_value_heads=2),
}


def write_tokenizer(folder: Path, *, types: bool, pad: int = PAD, **kwargs: Any) -> None:
    """The tokenizer; ``types``: it tells the two texts of a pair apart."""
    names = [*byte_tokens(), "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    if pad != PAD:
        names[pad], names[PAD] = names[PAD], names[pad]
    vocabulary = {name: place for place, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    if not types:
        inputs.remove("token_type_ids")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_input_names=inputs,
        **kwargs,
    ).save_pretrained(folder)


def write_encoder(
    folder: Path,
    kind: str = "bert",
    *,
    pooling: dict[str, Any] | None = None,
    steps: Sequence[tuple[str, dict[str, Any]]] = (("Normalize", {}),),
    sentence: dict[str, Any] | None = None,
    prompts: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """An embedding model. Without ``pooling`` it is a plain folder of transformers."""
    torch.manual_seed(seed)
    config = CONFIGS[kind]
    model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    write_tokenizer(folder, types=kind == "bert", pad=config.pad_token_id)
    if pooling is None:
        return folder
    listed = [("Transformer", ""), ("Pooling", "1_Pooling")]
    listed += [(name, f"{place}_{name}") for place, (name, _) in enumerate(steps, 2)]
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": path,
            "type": f"sentence_transformers.models.{name}",
        }
        for place, (name, path) in enumerate(listed)
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling/config.json", {"word_embedding_dimension": WIDTH} | pooling)
    for (name, path), (_, own) in zip(listed[2:], steps, strict=True):
        (folder / path).mkdir()
        _write_step(folder / path, name, own)
    _write(folder / "sentence_bert_config.json", sentence or {"do_lower_case": False})
    if prompts is not None:
        _write(folder / "config_sentence_transformers.json", prompts)
    return folder


def write_cross_encoder(
    folder: Path, kind: str = "bert", *, labels: int = 1, seed: int = 0, **fields: Any
) -> Path:
    """A cross-encoder; ``fields`` are added to its ``config.json``."""
    torch.manual_seed(seed)
    config = type(CONFIGS[kind])(**CONFIGS[kind].to_dict() | {"num_labels": labels})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    write_tokenizer(folder, types=kind == "bert", pad=config.pad_token_id)
    path = folder / "config.json"
    _write(path, json.loads(path.read_text()) | fields)
    return folder


def _write_step(folder: Path, name: str, own: dict[str, Any]) -> None:
    if name in ("Dense", "LayerNorm"):
        before = own.get("in_features") or own.get("dimension")
        after = own.get("out_features", before)
        weights = {"linear.weight": torch.randn(after, before), "linear.bias": torch.randn(after)}
        if name == "LayerNorm":
            weights = {"norm.weight": torch.randn(before), "norm.bias": torch.randn(before)}
        if own.get("use_residual") and before != after:
            weights["residual.weight"] = torch.randn(after, before)
        if own.get("bias") is False:
            del weights["linear.bias"]
        save_file(weights, folder / "model.safetensors")
    if own:
        _write(folder / "config.json", own)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
