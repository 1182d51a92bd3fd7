"""Which runner a model gets: the fast one where a trial shows that it is right, else the one that
is right for all, with prompts in pieces where a trial shows that the model goes on from inside.

What a model's class and configuration say of themselves rules some out; the trial finds what they
do not say. Only what a trial of few tokens cannot show has to be read from the configuration.
"""

import logging
from typing import Any

import torch

from dev_opsgpt.engines.hf.apart import ApartRunner
from dev_opsgpt.engines.hf.blocks import BLOCK
from dev_opsgpt.engines.hf.flat import FlatRunner
from dev_opsgpt.engines.hf.packing import PackedLinears
from dev_opsgpt.engines.hf.parameters import takes
from dev_opsgpt.engines.hf.runner import Runner
from dev_opsgpt.engines.hf.sequence import LoadedModel
from dev_opsgpt.engines.hf.trial import Trial

log = logging.getLogger(__name__)

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}
_CHANGING_ROPES = {"dynamic", "longrope"}
"""Rotations that depend on the longest sequence of a batch."""
_CHOOSING_LAYERS = {"indexed_attention", "compressed_sparse_attention"}
"""Attention to the keys with the best scores (DeepSeek V3.2 and V4, GLM 5). Scores below 0 count as
0, so some are equal, and which of those are taken depends on how many keys there are."""
_TOLERANCES = {torch.float32: 2e-3, torch.float64: 2e-3}
_TOLERANCE = 0.15
"""Relative, for 16 bits and less; what mixes sequences or places differs by far more."""


def choose_runner(loaded: LoadedModel) -> Runner:
    """Tries the model out. It is left with our attention in it where that works."""
    name = type(loaded.model).__name__
    apart = ApartRunner(loaded.model, loaded.device)
    trial = Trial(loaded)
    reason = _ruled_out(loaded)
    if reason is None:
        reason = _tried(loaded, trial, flat := FlatRunner(loaded.model, loaded.device))
        if reason is None:
            _pack(loaded, trial, flat)
            return flat
    log.warning("%s: %s, so each sequence is computed on its own", name, reason)
    noise = trial.distances(apart)
    reason = _differs(noise, _tolerance(loaded))
    if reason is not None:
        log.warning("%s: %s, so there is one sequence at a time", name, reason)
        apart.one_at_a_time = True
        return apart
    apart.whole_prompts = False
    if not _goes_on(loaded, trial, apart, max(1e-4, *noise)):
        apart.whole_prompts = True
        log.warning("%s: its prompts are computed in one piece", name)
    _pack(loaded, trial, apart)
    return apart


def _goes_on(loaded: LoadedModel, trial: Trial, apart: ApartRunner, noise: float) -> bool:
    """Whether the model goes on from inside of a prompt as well as it does after it.

    What is lost between two pieces may be little (a convolution of four tokens), so it must not
    hide in the tolerance for 16 bits: pieces may add no more than the ``noise`` of prompts in one.
    """
    if _changes_late(loaded):
        return False
    try:
        return all(found <= 2 * noise for found in trial.distances(apart, BLOCK // 2))
    except Exception:
        log.debug("The trial failed", exc_info=True)
        return False


def _ruled_out(loaded: LoadedModel) -> str | None:
    """Why the fast way is none for this model, as far as it says so itself."""
    model = loaded.model
    config = model.config.get_text_config(decoder=True)
    if getattr(model, "_is_stateful", False):
        return "it keeps more than keys and values"
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    if not takes(model.forward, "position_ids"):
        return "it does not take positions"
    unknown = _layer_types(config) - _KNOWN_LAYERS
    if unknown:
        return f"it has layers of type {', '.join(sorted(unknown))}"
    return _changes_late(loaded)


def _layer_types(config: Any) -> set[str]:
    return set(getattr(config, "layer_types", None) or ())


def _changes_late(loaded: LoadedModel) -> str | None:
    """What of its attention is another where a text is long, which no trial of few tokens shows."""
    config = loaded.model.config.get_text_config(decoder=True)
    if getattr(config, "attention_chunk_size", None):
        return "its attention is chunked"
    chosen = getattr(config, "index_topk", None) or 0
    if chosen < loaded.context_length and _CHOOSING_LAYERS.intersection(_layer_types(config)):
        return "its attention chooses among keys"
    if any(rope in _CHANGING_ROPES for rope in _ropes(config)) and loaded.context_length > (
        _original_context(config)
    ):
        return "its rotary embedding changes with the length"
    return None


def _ropes(config: Any) -> set[str]:
    """The types of its rotary embeddings; newer configurations have one for each type of layer."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    parts = [found, *(part for part in found.values() if isinstance(part, dict))]
    return {str(part.get("rope_type", part.get("type", "default"))) for part in parts}


def _original_context(config: Any) -> int:
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    original = found.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    return int(original or config.max_position_embeddings)


def _tried(loaded: LoadedModel, trial: Trial, runner: FlatRunner) -> str | None:
    """Runs the trial; why not, if it fails, and then the model is as it was before."""
    try:
        runner.enter()
        found = trial.distances(runner)
        reason = _differs(found, _tolerance(loaded)) or _unsaid(loaded, runner)
    except Exception as error:
        log.debug("The trial failed", exc_info=True)
        reason = f"a trial of batching failed ({type(error).__name__}: {error})"
    if reason is not None:
        runner.leave()
    return reason


def _pack(loaded: LoadedModel, trial: Trial, runner: FlatRunner | ApartRunner) -> None:
    """Packs the model's weights, if it still says the same then."""
    packed = PackedLinears(loaded.model)
    if not len(packed):
        return
    try:
        reason = _differs(trial.distances(runner), _tolerance(loaded))
    except Exception as error:
        log.debug("The trial failed", exc_info=True)
        reason = f"a trial of packed weights failed ({type(error).__name__}: {error})"
    if reason is None:
        runner.packed = packed
    else:
        log.warning("%s: %s, so they stay as they are", type(loaded.model).__name__, reason)
        packed.unpack()


def _tolerance(loaded: LoadedModel) -> float:
    return _TOLERANCES.get(loaded.model.dtype, _TOLERANCE)


def _differs(distances: list[float], tolerance: float) -> str | None:
    for distance in distances:
        if not distance <= tolerance:
            return f"batching it changed what it says by {distance:.3g}"
    return None


def _unsaid(loaded: LoadedModel, runner: FlatRunner) -> str | None:
    """Windows that the configuration has and the layers did not tell our attention of."""
    config = loaded.model.config.get_text_config(decoder=True)
    shapes = runner.attention.store.shapes
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) or 0
    if window >= loaded.context_length:
        sliding = []
    elif kinds is not None:
        sliding = [layer for layer, kind in enumerate(kinds) if kind == "sliding_attention"]
    elif window and getattr(config, "use_sliding_window", True):
        sliding = list(shapes)
    else:
        sliding = []
    if len(shapes) != config.num_hidden_layers:
        return "not every layer calls the attention function"
    if any(layer not in shapes or shapes[layer].window is None for layer in sliding):
        return "its layers do not tell of their sliding window"
    return None
