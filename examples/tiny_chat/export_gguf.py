"""A Llama model folder (config.json, model.safetensors, tokenizer.json) as one GGUF file.

The folder is read without torch, so this also serves folders made elsewhere.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, quants

Array = npt.NDArray[np.float32]

# Hugging Face's names on the left, llama.cpp's on the right.
TOP_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face Llama weight; KeyError for one it does not have."""
    stem = name.removesuffix(".weight")
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.weight"
    _, _, index, rest = stem.split(".", 3)
    return f"blk.{index}.{LAYER_NAMES[rest]}.weight"


def interleave(weight: Array, heads: int) -> Array:
    """Rotary pairs side by side, as llama.cpp's Llama has them; Hugging Face keeps halves apart."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def read_weights(path: Path) -> Iterator[tuple[str, Array]]:
    """Every tensor of a safetensors file as float32 (F32, F16 and BF16 are known)."""
    for name, tensor in sorted(safetensors.deserialize(path.read_bytes())):  # type: ignore[no-untyped-call]
        data, kind = bytes(tensor["data"]), tensor["dtype"]
        if kind == "BF16":
            # bfloat16 is the upper half of a float32.
            wide = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
            array = wide.view(np.float32)
        elif kind in ("F16", "F32"):
            array = np.frombuffer(data, np.float16 if kind == "F16" else np.float32)
        else:
            raise ValueError(f"{name}: cannot read {kind} weights")
        yield name, array.astype(np.float32).reshape(tensor["shape"])


def add_shape(writer: GGUFWriter, config: dict[str, Any]) -> None:
    """The model's dimensions."""
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])


def add_tokenizer(writer: GGUFWriter, folder: Path, vocab_size: int) -> None:
    """Tokens, merges, the special ids and the chat template."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    ids: dict[str, int] = dict(tokenizer["model"]["vocab"])
    kinds = dict.fromkeys(ids, TokenType.NORMAL)
    for token in tokenizer["added_tokens"]:
        text = token["content"]
        ids[text] = token["id"]
        kinds[text] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    by_id = {index: text for text, index in ids.items()}
    tokens = [by_id.get(index, f"[unused{index}]") for index in range(vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(text, TokenType.UNUSED) for text in tokens])
    writer.add_token_merges(tokenizer["model"]["merges"])
    writer.add_bos_token_id(ids[settings["bos_token"]])
    writer.add_eos_token_id(ids[settings["eos_token"]])
    writer.add_pad_token_id(ids[settings["pad_token"]])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text("utf-8"))


def add_weights(writer: GGUFWriter, folder: Path, config: dict[str, Any], kind: str) -> None:
    """All tensors; matrices as `kind`, the norms' vectors as they are."""
    for name, weight in read_weights(folder / "model.safetensors"):
        if name.endswith("q_proj.weight"):
            weight = interleave(weight, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            weight = interleave(weight, config["num_key_value_heads"])
        use = GGMLQuantizationType.F32 if weight.ndim == 1 else GGMLQuantizationType[kind]
        writer.add_tensor(gguf_name(name), quants.quantize(weight, use), raw_dtype=use)


def export_gguf(folder: Path, out: Path, kind: str = "Q8_0") -> None:
    """Write `folder` to `out`, matrices as `kind` (F32, F16, BF16, Q8_0 ...), in one rename."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    partial = out.with_name(out.name + ".partial")
    writer = GGUFWriter(partial, "llama")
    writer.add_name(folder.name)
    writer.add_license("apache-2.0")
    file_type = "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"
    writer.add_file_type(LlamaFileType[file_type])
    add_shape(writer, config)
    add_tokenizer(writer, folder, config["vocab_size"])
    add_weights(writer, folder, config, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, out)
