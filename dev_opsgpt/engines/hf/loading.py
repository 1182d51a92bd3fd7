"""How a causal language model in Hugging Face format is brought into memory."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dev_opsgpt.engines.hf.context import context_length, end_tokens
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.engines.hf.sequence import LoadedModel
from dev_opsgpt.worker.engine import EngineError

Progress = Callable[[str, float], None]
"""Called with what is done, for a person, and how much of the load is over, 0 to 1."""


def load(options: HfOptions, progress: Progress | None = None) -> LoadedModel:
    """Loads a model. It blocks for as long as that takes. Raises ``EngineError``."""
    path = options.path
    if isinstance(path, Path) and not path.is_dir():
        raise EngineError(f"There is no folder {path}.")
    device = torch.device("cpu" if options.device == "auto" else options.device)
    dtype = getattr(torch, options.dtype) if options.dtype else "auto"
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        context_length=context_length(model.config.to_dict(), tokenizer, options.context),
        end_tokens=end_tokens(model.generation_config, tokenizer),
        vocabulary=model.get_output_embeddings().weight.shape[0],
        device=device,
    )
