"""How long a model's context is, and which tokens end its answers. Pure."""

from collections.abc import Mapping
from typing import Any

# Where neither the model nor its tokenizer says.
_UNKNOWN = 2048
# A tokenizer without a limit says 10**30; no model's context is this long.
_NO_LIMIT = 10**9
_LENGTH_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")


def context_length(config: Mapping[str, Any], tokenizer: Any, asked: int | None) -> int:
    """Tokens that prompt and answer share: what the model was made for, or fewer where asked.

    ``config`` is ``PretrainedConfig.to_dict()``. A sliding window bounds what a token sees, not how
    long a text may be, so it does not count.
    """
    text = config.get("text_config")
    merged = {**config, **text} if isinstance(text, Mapping) else config
    made_for = next((int(merged[key]) for key in _LENGTH_KEYS if merged.get(key)), None)
    if made_for is None:
        limit = getattr(tokenizer, "model_max_length", None)
        made_for = int(limit) if limit is not None and limit < _NO_LIMIT else _UNKNOWN
    return min(asked, made_for) if asked else made_for


def end_tokens(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end an answer: those of the generation configuration, and the tokenizer's."""
    ids = getattr(generation_config, "eos_token_id", None)
    found = set(ids) if isinstance(ids, list | tuple) else {ids}
    found.add(getattr(tokenizer, "eos_token_id", None))
    return frozenset(int(token) for token in found if token is not None)
