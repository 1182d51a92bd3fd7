"""Models in Hugging Face format of a few thousand random weights, made in a moment.

The tokenizer is byte-level BPE: the 256 bytes, a few merges and ChatML's tokens, so that every text
has tokens and characters outside ASCII come in pieces.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.engines.random_model import HERMES

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTEXT = 2048
_SENTENCES = (
    "The controller knows who is alive. The gateway routes bytes, the worker speaks. "
    "A model reads the message and writes an answer, one token after the other. "
)


def tiny_tokenizer(*, template: str | None = HERMES, merges: int = 64) -> PreTrainedTokenizerFast:
    """A tokenizer of 259 + ``merges`` tokens with a chat template (ChatML, with tools)."""
    specials = [END_OF_TEXT, IM_START, IM_END]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(specials) + merges,
        special_tokens=specials,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([_SENTENCES] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = template
    return fast


def tiny_config(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> LlamaConfig:
    """A Llama of two layers, 64 wide; ``changes`` are fields of ``LlamaConfig``."""
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return LlamaConfig(**fields | changes)


def save(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """Writes a model, its generation configuration and the tokenizer that belongs to it."""
    tokenizer = tiny_tokenizer()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.bos_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_llama(folder: Path, *, seed: int = 0, dtype: str = "float32", **changes: Any) -> Path:
    """Writes a Llama of random weights to ``folder``, everything that ``from_pretrained`` needs.

    ``changes`` are fields of ``LlamaConfig``. The end tokens are ``<|im_end|>`` and
    ``<|endoftext|>``.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(tiny_config(tiny_tokenizer(), **changes))
    return save(model.to(getattr(torch, dtype)), folder)
