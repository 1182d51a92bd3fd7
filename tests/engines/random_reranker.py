"""A GGUF of a BERT with random weights that scores pairs of texts: what llama.cpp calls pooling by
rank. Its tokens are the 256 bytes and three control tokens."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

from tests.engines.random_model import byte_tokens

WIDTH, LAYERS, HEADS, CONTEXT = 32, 2, 2, 256
CLS, SEP, PAD = 256, 257, 258


def write_reranker(
    path: Path, *, pooling: PoolingType = PoolingType.RANK, seed: int = 0, scale: float = 0.3
) -> Path:
    """Writes the model to ``path``; with another ``pooling`` it makes vectors only."""
    random = np.random.default_rng(seed)
    writer = GGUFWriter(str(path), "bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_token_type_count(2)
    writer.add_vocab_size(259)
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*byte_tokens(), "[CLS]", "[SEP]", "[PAD]"])
    writer.add_token_types([TokenType.NORMAL] * 256 + [TokenType.CONTROL] * 3)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(CLS)
    writer.add_eos_token_id(SEP)
    writer.add_sep_token_id(SEP)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)

    def add(name: str, *shape: int) -> None:
        values = random.standard_normal(shape) * scale
        writer.add_tensor(name, values.astype(np.float32))

    def add_both(name: str, after: int, before: int) -> None:
        add(f"{name}.weight", after, before)
        add(f"{name}.bias", after)

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))

    add("token_embd.weight", 259, WIDTH)
    add("position_embd.weight", CONTEXT, WIDTH)
    add("token_types.weight", 2, WIDTH)
    add_norm("token_embd_norm")
    if pooling == PoolingType.RANK:
        add_both("cls", WIDTH, WIDTH)
        add_both("cls.output", 1, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add_both(f"{block}.{part}", WIDTH, WIDTH)
        add_norm(f"{block}.attn_output_norm")
        add_both(f"{block}.ffn_up", 2 * WIDTH, WIDTH)
        add_both(f"{block}.ffn_down", WIDTH, 2 * WIDTH)
        add_norm(f"{block}.layer_output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_deciding_reranker(path: Path, *, seed: int = 0) -> Path:
    """Writes a Qwen3 with random weights that answers a pair by "yes" or "no", as its rerankers
    do; llama.cpp makes probabilities of the two."""
    random = np.random.default_rng(seed)
    writer = GGUFWriter(str(path), "qwen3")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(WIDTH // HEADS)
    writer.add_value_length(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_pooling_type(PoolingType.RANK)
    writer.add_vocab_size(259)
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*byte_tokens(), "[CLS]", "[SEP]", "[PAD]"])
    writer.add_token_types([TokenType.NORMAL] * 256 + [TokenType.CONTROL] * 3)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(CLS)
    writer.add_eos_token_id(SEP)
    writer.add_add_bos_token(False)
    writer.add_array("qwen3.classifier.output_labels", ["yes", "no"])
    writer.add_string("tokenizer.chat_template.rerank", "{query}|{document}")

    def add(name: str, *shape: int) -> None:
        values = random.standard_normal(shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def add_norm(name: str, size: int) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(size, np.float32))

    add("token_embd", 259, WIDTH)
    add("output", 259, WIDTH)
    add("cls.output", 2, WIDTH)
    add_norm("output_norm", WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            add_norm(f"{block}.{norm}", WIDTH)
        for norm in ("attn_q_norm", "attn_k_norm"):
            add_norm(f"{block}.{norm}", WIDTH // HEADS)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{part}", WIDTH, WIDTH)
        add(f"{block}.ffn_gate", 2 * WIDTH, WIDTH)
        add(f"{block}.ffn_up", 2 * WIDTH, WIDTH)
        add(f"{block}.ffn_down", WIDTH, 2 * WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
