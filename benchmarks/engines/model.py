"""The model that is measured: a Llama of random weights, with a tokenizer trained on the standard
library's source, made once and kept in the ignored folder for caches."""

import hashlib
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / ".cache" / "benchmarks" / "engines"
VOCABULARY = 16384
CONTEXT = 4096
TEMPLATE = (
    "{% for m in messages %}<|role|>{{ m['role'] }}\n{{ m['content'] }}<|sep|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|role|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """Of a Llama; the default has about 140 million parameters."""

    layers: int = 18
    hidden: int = 768
    heads: int = 12
    key_heads: int = 4
    dtype: str = "bfloat16"


def ensure_model(size: Size) -> Path:
    """The folder of the model, which is made if it is not there."""
    name = hashlib.sha256(json.dumps(asdict(size)).encode()).hexdigest()[:12]
    folder = FOLDER / f"llama-{size.layers}x{size.hidden}-{name}"
    if not (folder / "complete").exists():
        _make(size, folder)
        (folder / "complete").touch()
    return folder


def _make(size: Size, folder: Path) -> None:
    import torch
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden,
        intermediate_size=size.hidden * 8 // 3 // 64 * 64,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        max_position_embeddings=CONTEXT,
        initializer_range=0.08,
        bos_token_id=None,
        # Nobody ends early: every answer has the length that was asked for.
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, size.dtype))
    generation: Any = transformers.GenerationConfig
    model.generation_config = generation(pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> Any:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|pad|>", "<|role|>", "<|sep|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(_source(), trainer)
    fast: Any = transformers.PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=made, pad_token="<|pad|>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.padding_side = "left"
    return tokenizer


def _source(most: int = 8_000_000) -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text(errors="replace")
        most -= len(text)
        yield text
        if most < 0:
            return
