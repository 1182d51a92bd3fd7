"""A GGUF of random weights: the hardest test for grammars, stop strings and UTF-8.

Its tokens are the 256 bytes and three control tokens, so every character that is not ASCII comes
in pieces, and much of what it writes is not UTF-8 at all.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

HEADS, CONTEXT = 2, 4096
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 256 + len(CONTROL)

HERMES = """\
{%- if tools %}<|im_start|>system
{%- if messages[0].role == 'system' %}
{{ messages[0].content }}
{%- endif %}
Tools: <tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
Call one so:
<tool_call>
{"name": <name>, "arguments": <object>}
</tool_call><|im_end|>
{% endif %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' + m.content }}
{%- for call in m.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def byte_tokens() -> list[str]:
    """The 256 bytes under GPT-2's names for them."""
    named = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in named else chr(next(others)) for byte in range(256)]


def write_model(
    path: Path,
    *,
    template: str = HERMES,
    width: int = 64,
    layers: int = 2,
    seed: int = 0,
    marks: Sequence[str] = (),
) -> Path:
    """Writes the model to ``path``. A ``width`` of 512 makes a model that takes its time; ``marks``
    are further control tokens."""
    control = [*CONTROL, *marks]
    vocabulary = 256 + len(control)
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(3 * width)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(byte_tokens() + control)
    writer.add_token_types([TokenType.NORMAL] * 256 + [TokenType.CONTROL] * len(control))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(258)
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)
    _add_weights(writer, vocabulary, width, layers, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_weights(
    writer: GGUFWriter, vocabulary: int, width: int, layers: int, random: np.random.Generator
) -> None:
    def add(name: str, *shape: int) -> None:
        values = random.standard_normal(shape) * 0.3
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    add("token_embd", vocabulary, width)
    add("output", vocabulary, width)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(layers):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", np.ones(width, np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{part}", width, width)
        add(f"{block}.ffn_gate", 3 * width, width)
        add(f"{block}.ffn_up", 3 * width, width)
        add(f"{block}.ffn_down", width, 3 * width)
