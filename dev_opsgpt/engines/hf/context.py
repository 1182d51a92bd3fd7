"""How long a model's context is, and which tokens end its answers. Pure."""

from collections.abc import Mapping
from typing import Any

# Where neither the model nor its tokenizer says.
_UNKNOWN = 2048
# A tokenizer without a limit says 10**30; no model's context is this long.
_NO_LIMIT = 10**9
_LENGTH_KEYS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"),
    *("seq_length", "n_ctx"),
)


def context_length(config: Mapping[str, Any], tokenizer: Any, asked: int | None) -> int:
    """Tokens that prompt and answer share: as many as asked for, but no more than the model was
    made for; where nobody asks, no more than its tokenizer says either.

    ``config`` is ``PretrainedConfig.to_dict()``. A sliding window bounds what one token sees, not
    how long a text may be, so it does not count.
    """
    made_for = _made_for(config)
    if asked is not None:
        return asked if made_for is None else min(asked, made_for)
    limit = getattr(tokenizer, "model_max_length", None)
    known = [length for length in (made_for, limit) if length is not None and length < _NO_LIMIT]
    return int(min(known, default=_UNKNOWN))


def _made_for(config: Mapping[str, Any]) -> int | None:
    """The longest text that a model's positions reach, None where its configuration is silent."""
    text = config.get("text_config")
    merged = {**config, **text} if isinstance(text, Mapping) else config
    length = next((int(merged[key]) for key in _LENGTH_KEYS if merged.get(key)), None)
    rope = merged.get("rope_parameters") or merged.get("rope_scaling") or {}
    kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor")
    if length is None or not isinstance(factor, int | float):
        return length
    # What the others (llama3, longrope) reach is written as the length already.
    if kind in ("linear", "dynamic"):
        return int(length * factor)
    if kind == "yarn":
        return max(length, int(rope.get("original_max_position_embeddings", length) * factor))
    return length


def end_tokens(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end an answer: those of the generation configuration, and the tokenizer's."""
    ids = getattr(generation_config, "eos_token_id", None)
    found = set(ids) if isinstance(ids, list | tuple) else {ids}
    found.add(getattr(tokenizer, "eos_token_id", None))
    return frozenset(int(token) for token in found if token is not None)
