"""A model that reads texts and writes none: its folder, tokenizer, length, and one pass over rows.

What encoders and cross-encoders have in common; what is done with the pass is theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from dev_opsgpt.engines.hf.context import context_length
from dev_opsgpt.engines.hf.description import (
    Description,
    load_tokenizer,
    needs_code,
    read_configuration,
)
from dev_opsgpt.engines.hf.devices import choose_dtype, place
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.engines.hf.progress import Progress
from dev_opsgpt.engines.hf.source import folder_of, read_config, read_json
from dev_opsgpt.engines.hf.weights import load_weights, quietly
from dev_opsgpt.worker.engine import EngineError

# A tokenizer without a limit says 10**30.
_NO_LIMIT = 10**9
# On a GPU more is read in one go than a step of a generation reads of prompts.
_GPU_BUDGET = 16
# Made by some models of the first token, and used by none of ours.
_UNUSED = ("pooler.",)
# Where a model of a kind is found: the name in its ``auto_map``, and transformers' own tables.
_MAPPINGS: Mapping[str, tuple[Any, ...]] = {
    "AutoModel": (MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING),
    "AutoModelForSequenceClassification": (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,),
}


@dataclass(frozen=True)
class Row:
    """A text, or a pair of texts, as a model reads it. ``types`` tells the two apart, for models
    that want it; the first ``skipped`` tokens are a prompt that is no part of the result."""

    ids: list[int]
    types: list[int] | None = None
    skipped: int = 0


def length_of(row: Row) -> int:
    """A row's tokens."""
    return len(row.ids)


@dataclass(frozen=True)
class Reader:
    """A loaded model.

    ``longest`` is the most tokens of a row, special ones included; ``budget`` the most of a batch,
    with padding; ``width`` the length of what the model says of a token.
    """

    folder: Path
    model: Any
    tokenizer: Any
    device: torch.device
    longest: int
    budget: int
    width: int
    vocabulary: int

    def batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """What the model is called with: the rows, filled up on the right."""
        longest = max(len(row.ids) for row in rows)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(rows), longest), pad)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        types = None
        if any(row.types is not None for row in rows):
            types = torch.zeros((len(rows), longest), dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, : len(row.ids)] = torch.tensor(row.ids)
            mask[at, : len(row.ids)] = 1
            if types is not None and row.types is not None:
                types[at, : len(row.ids)] = torch.tensor(row.types)
        made = {"input_ids": ids, "attention_mask": mask}
        if types is not None:
            made["token_type_ids"] = types
        return {name: tensor.to(self.device) for name, tensor in made.items()}


def load_reader(
    options: HfOptions,
    kind: str,
    *,
    progress: Progress,
    inside: Path | None = None,
    longest: int | None = None,
) -> Reader:
    """Loads a model, and blocks for as long as that takes. Raises ``EngineError``.

    ``kind`` is a key of ``_MAPPINGS``. ``inside`` is the folder where the transformer lies, if not
    in the model's own. ``longest`` is what the model says of itself beyond its configuration;
    ``options.context`` goes before it, as far as there are positions.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    trust = options.trust_remote_code
    folder = inside or folder_of(options.path, code=trust, progress=progress)
    with quietly():
        description = _describe(folder, kind, trust)
        tokenizer = load_tokenizer(folder, trust)
        placement = place(options)
        dtype = choose_dtype(options.dtype, description.config, placement.device)
        model = load_weights(description, options, placement, dtype, progress)
    text = model.config.get_text_config()
    text.use_cache = model.config.use_cache = False
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        # A decoder that classifies looks for the last token that is no padding.
        text.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    on_cpu = placement.device.type == "cpu"
    return Reader(
        folder,
        model,
        tokenizer,
        placement.device,
        _longest(model, tokenizer, longest, options.context),
        options.prefill_tokens * (1 if on_cpu else _GPU_BUDGET),
        int(text.hidden_size),
        int(model.get_input_embeddings().weight.shape[0]),
    )


def is_causal(folder: Path) -> bool:
    """Whether a folder's model sees the tokens before each one only. Raises ``EngineError``."""
    names = (read_json(folder / "config.json") or {}).get("architectures") or ()
    return any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def _describe(folder: Path, kind: str, trust: bool) -> Description:
    raw = read_config(folder)
    config = read_configuration(folder, raw, trust)
    own = (getattr(config, "auto_map", None) or {}).get(kind)
    if own is not None and trust:
        found = get_class_from_dynamic_module(own, str(folder))
        return Description(folder, raw, config, found, _UNUSED)
    for mapping in _MAPPINGS[kind]:
        if type(config) in mapping:
            return Description(folder, raw, config, mapping[type(config)], _UNUSED)
    if own is not None:
        raise needs_code(folder)
    raise EngineError(f"{folder}: transformers has no {kind} of type {raw.get('model_type')!r}.")


def _longest(model: nn.Module, tokenizer: Any, said: int | None, asked: int | None) -> int:
    """The most tokens of a row."""
    config: Any = model.config
    most = _positions(model) or context_length(config.to_dict(), tokenizer, None)
    if said is None and tokenizer.model_max_length < _NO_LIMIT:
        said = int(tokenizer.model_max_length)
    return min(most, asked or said or most)


def _positions(model: nn.Module) -> int | None:
    """How many tokens have a place in the model's table of positions, for those that have one.
    RoBERTa and its kin count from behind their padding's place."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - before
    return None
