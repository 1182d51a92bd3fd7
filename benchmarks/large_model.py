"""A model of a real one's size for a CPU, made on the fly: 134 million random weights in Q4_0, with
the shape and the cost of a Llama. What it writes means nothing."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

WIDTH, LAYERS, HEADS, INNER, CONTEXT = 768, 12, 12, 2048, 2048
VOCABULARY = 32_000
# Q4_0: 32 weights in a block of a 16-bit scale and 16 bytes. The scale gives weights of 0.02.
BLOCK, BYTES, SCALE = 32, 18, 0.0043
END = "<|end|>"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def write_model(path: Path) -> Path:
    """Writes the GGUF (75 MB) to ``path``."""
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(2)
    writer.add_chat_template(TEMPLATE)
    _add_tokenizer(writer)
    _add_weights(writer, np.random.default_rng(0))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: GGUFWriter) -> None:
    """The 256 bytes under GPT-2's names for them, the end, and words of a few letters."""
    named = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    tokens = [chr(byte) if byte in named else chr(next(others)) for byte in range(256)]
    words = [f"Ġ{number:x}" for number in range(VOCABULARY - len(tokens) - 1)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, END, *words])
    normal, control = TokenType.NORMAL, TokenType.CONTROL
    writer.add_token_types([normal] * 256 + [control] + [normal] * len(words))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)
    writer.add_add_bos_token(False)


def _add_weights(writer: GGUFWriter, random: np.random.Generator) -> None:
    def add(name: str, rows: int, columns: int) -> None:
        blocks = random.integers(0, 256, (rows, columns // BLOCK, BYTES), np.uint8)
        blocks[..., :2] = np.frombuffer(np.float16(SCALE).tobytes(), np.uint8)
        data = blocks.reshape(rows, -1)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=GGMLQuantizationType.Q4_0)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    add("token_embd", VOCABULARY, WIDTH)
    add("output", VOCABULARY, WIDTH)
    norm("output_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        norm(f"{block}.ffn_norm")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{part}", WIDTH, WIDTH)
        add(f"{block}.ffn_gate", INNER, WIDTH)
        add(f"{block}.ffn_up", INNER, WIDTH)
        add(f"{block}.ffn_down", WIDTH, INNER)
