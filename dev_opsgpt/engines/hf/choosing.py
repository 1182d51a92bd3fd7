"""Which runner a model gets: the fast one where a trial shows that it is right, else the one that
is right for all.

What a model's class and configuration say of themselves rules some out; the trial, two sequences
of a few tokens in pieces beside each other against the model's own forward, finds what they do not
say. Only what a trial of few tokens cannot show has to be read from the configuration.
"""

import logging
import random
from typing import Any

import torch

from dev_opsgpt.engines.hf.apart import ApartRunner
from dev_opsgpt.engines.hf.blocks import BLOCK, BlockPool
from dev_opsgpt.engines.hf.flat import FlatRunner
from dev_opsgpt.engines.hf.packing import PackedLinears
from dev_opsgpt.engines.hf.parameters import takes
from dev_opsgpt.engines.hf.runner import Runner
from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.scheduler import Scheduler
from dev_opsgpt.engines.hf.sequence import LoadedModel, Sampling

log = logging.getLogger(__name__)

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}
_CHANGING_ROPES = {"dynamic", "longrope"}
"""Rotations that depend on the longest sequence of a batch."""
_TOLERANCES = {torch.float32: 2e-3, torch.float64: 2e-3}
_TOLERANCE = 0.15
"""Relative, for 16 bits and less; what mixes sequences or places differs by far more."""


def choose_runner(loaded: LoadedModel) -> Runner:
    """Tries the model out. It is left with our attention in it where that works."""
    name = type(loaded.model).__name__
    prompts = _prompts(loaded.vocabulary)
    expected = [_own_logits(loaded, prompt) for prompt in prompts]
    reason = _ruled_out(loaded)
    if reason is None:
        reason = _tried(loaded, flat := FlatRunner(loaded.model, loaded.device), prompts, expected)
        if reason is None:
            _pack(loaded, flat, prompts, expected)
            return flat
    log.warning("%s: %s, so each sequence is computed on its own", name, reason)
    apart = ApartRunner(loaded.model, loaded.device)
    reason = _differs(expected, _trial(apart, prompts), _tolerance(loaded))
    if reason is not None:
        log.warning("%s: %s, so there is one sequence at a time", name, reason)
        apart.one_at_a_time = True
    else:
        _pack(loaded, apart, prompts, expected)
    return apart


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
    layers = set(getattr(config, "layer_types", None) or ())
    if layers - _KNOWN_LAYERS:
        return f"it has layers of type {', '.join(sorted(layers - _KNOWN_LAYERS))}"
    if getattr(config, "attention_chunk_size", None):
        return "its attention is chunked"
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


def _tried(
    loaded: LoadedModel,
    runner: FlatRunner,
    prompts: list[list[int]],
    expected: list[torch.Tensor],
) -> str | None:
    """Runs the trial; why not, if it fails, and then the model is as it was before."""
    try:
        runner.enter()
        found = _trial(runner, prompts)
        reason = _differs(expected, found, _tolerance(loaded)) or _unsaid(loaded, runner)
    except Exception as error:
        log.debug("The trial failed", exc_info=True)
        reason = f"a trial of batching failed ({type(error).__name__}: {error})"
    if reason is not None:
        runner.leave()
    return reason


def _pack(
    loaded: LoadedModel,
    runner: FlatRunner | ApartRunner,
    prompts: list[list[int]],
    expected: list[torch.Tensor],
) -> None:
    """Packs the model's weights, if it still says the same then."""
    packed = PackedLinears(loaded.model)
    if not len(packed):
        return
    try:
        reason = _differs(expected, _trial(runner, prompts), _tolerance(loaded))
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


def _prompts(vocabulary: int) -> list[list[int]]:
    source = random.Random(0)  # noqa: S311
    return [[source.randrange(vocabulary) for _ in range(length)] for length in (21, 9, 14)]


def _own_logits(loaded: LoadedModel, prompt: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt], device=loaded.device)
    output = loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids), return_dict=True)
    logits: torch.Tensor = output.logits[0].float()
    return logits


def _trial(runner: Runner, prompts: list[list[int]]) -> list[dict[int, torch.Tensor]]:
    """The logits found at places of each prompt. A prompt is given up to its last tokens, which
    then come one by one as if generated."""
    pool = BlockPool(16)
    runner.resize(pool.count)
    scheduler = Scheduler(
        pool, parallel=len(prompts), prefill_tokens=BLOCK, whole=runner.whole_prompts
    )
    sequences = [Running(prompt[:-3], Sampling(max_tokens=8)) for prompt in prompts]
    found: list[dict[int, torch.Tensor]] = [{} for _ in prompts]
    scheduler.add(sequences[0])
    for turn in range(40):
        if turn == 1:
            for sequence in sequences[1:]:
                scheduler.add(sequence)
        ends, logits = runner.run(works := scheduler.plan().works)
        for work in works:
            scheduler.done(work)
        for work, row in zip(ends, logits, strict=True):
            which = sequences.index(work.sequence)
            place = len(work.sequence.tokens)
            found[which][place - 1] = row.float()
            if place == len(prompts[which]):
                scheduler.remove(work.sequence)
                runner.forget(work.sequence)
            else:
                work.sequence.append(prompts[which][place])
        if scheduler.empty:
            break
    return found


def _differs(
    expected: list[torch.Tensor], found: list[dict[int, torch.Tensor]], tolerance: float
) -> str | None:
    for own, ours in zip(expected, found, strict=True):
        for place, row in ours.items():
            distance = (row - own[place]).norm() / own[place].norm().clamp(min=1e-6)
            if not bool(distance <= tolerance):
                return f"batching it changed what it says by {float(distance):.3g}"
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
