"""The model itself: its size, its configuration and a fresh one to train."""

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor, autocast, nn
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from tiny_chat.chat_format import END_OF_TEXT, TURN_END
from tiny_chat.tokenizer import token_id


@dataclass(frozen=True)
class Shape:
    """The size of the model; the defaults fit folder and GGUF file into 16 MB together."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 576
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    context: int = 4096


def model_config(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json: both spellings where old and new transformers differ."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden_size // shape.heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
        **token_ids(tokenizer),
    }


def token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of the special tokens, as config.json and generation_config.json name them."""
    return {
        "bos_token_id": token_id(tokenizer, END_OF_TEXT),
        "eos_token_id": token_id(tokenizer, TURN_END),
        "pad_token_id": token_id(tokenizer, END_OF_TEXT),
    }


def wide_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention in float32: on a CPU its bfloat16 gradient is five times as slow."""
    groups = query.shape[1] // key.shape[1]
    with autocast("cpu", enabled=False):
        out = nn.functional.scaled_dot_product_attention(
            query.float(),
            key.float().repeat_interleave(groups, 1),
            value.float().repeat_interleave(groups, 1),
            is_causal=True,
            scale=scaling,
        )
    return out.transpose(1, 2).contiguous(), None


def build_model(shape: Shape, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A Llama with random weights; input and output embeddings are one matrix."""
    AttentionInterface.register("wide", wide_attention)
    settings = model_config(shape, tokenizer) | {
        "dtype": "float32",
        "torch_dtype": "float32",
        "use_cache": False,
    }
    settings["attn_implementation"] = "wide"
    return LlamaForCausalLM(LlamaConfig(**settings))
