"""Each sequence in a forward of its own, with the model's own cache: the way for models whose state
is not keys and values alone, or whose attention is their own affair. Right for any, and slower."""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from dev_opsgpt.engines.hf.packing import PackedLinears
from dev_opsgpt.engines.hf.parameters import takes
from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.scheduler import Work

CACHES = ("cache", "past_key_values", "cache_params", "mems")
"""What models call what they keep: transformers' name of today, and those of older code."""


Slot = tuple[torch.nn.Module, str]


@dataclass
class _State:
    seen: int
    cache: Any
    values: list[Any]
    """Of the slots, see ``_kept_inside``."""


class ApartRunner:
    """Runs any causal language model as its own ``generate`` does. Made before the model has run:
    what that holds then is how every sequence begins."""

    states = True
    whole_prompts = True
    """False where a trial has shown that the model goes on from inside of a prompt."""
    one_at_a_time = False
    packed: PackedLinears | None = None
    """The model's weights, to be unpacked in the end."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._states: dict[Running, _State] = {}
        self._untouched = _kept_inside(model)
        self._slots: list[Slot] | None = None
        self._initial: list[Any] = []
        self._argument = next((name for name in CACHES if takes(model.forward, name)), None)
        self._takes_positions = takes(model.forward, "position_ids")
        self._keeps_logits = takes(model.forward, "logits_to_keep")
        prepare = type(model).prepare_inputs_for_generation
        self._cuts = takes(prepare, "next_sequence_length") or (
            prepare.__module__.startswith("transformers.") and _library_cuts()
        )

    def run(self, works: Items[Work]) -> tuple[list[Work], torch.Tensor]:
        """Each work in a forward of its own."""
        rows = [self._forward(work) for work in works]
        chosen = [(work, row) for work, row in zip(works, rows, strict=True) if work.last]
        if not chosen:
            return [], torch.empty(0, 0)
        return [work for work, _ in chosen], torch.stack([row for _, row in chosen])

    @property
    def bytes_per_token(self) -> int:
        """Unknown: what such models keep often does not grow with the tokens."""
        return 0

    def resize(self, blocks: int) -> None:
        """Lets go of all state. Each sequence's grows on its own; the scheduler bounds their
        tokens."""
        self._states.clear()

    def clear(self, blocks: Items[int]) -> None:
        """There are none: what a sequence leaves goes with its state."""

    def leave(self) -> None:
        """Lets go of all state."""
        self._states.clear()
        if self.packed is not None:
            self.packed.unpack()

    def hand_on(self, old: Running, new: Running) -> None:
        """See ``Runner``."""
        state = self._states.pop(old, None)
        if state is not None:
            self._states[new] = state

    def forget(self, sequence: Running) -> None:
        """Lets go of its state."""
        self._states.pop(sequence, None)

    def _forward(self, work: Work) -> torch.Tensor:
        """The logits after the work's last token."""
        state = self._states.pop(work.sequence, None)
        end = work.start + work.count
        # Anew, where a step broke off, or the model keeps nothing.
        fresh = state is None or state.cache is None or state.seen != work.start
        ids = torch.tensor([work.sequence.tokens[:end]], device=self._device)
        given: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": True}
        if self._takes_positions:
            # Some models count from 0 again where they are not told (Bamba).
            given["position_ids"] = torch.arange(end, device=self._device)[None]
        if self._argument:
            given[self._argument] = self._new_cache() if state is None or fresh else state.cache
        if self._cuts:
            given["next_sequence_length"] = None if fresh else work.count
        inputs = self._model.prepare_inputs_for_generation(ids, is_first_iteration=fresh, **given)
        if self._keeps_logits:
            inputs["logits_to_keep"] = 1
        values = self._initial if state is None or fresh else state.values
        output = self._call(inputs, values)
        kept = next((output[name] for name in CACHES if output.get(name) is not None), None)
        offered = given.get(self._argument) if self._argument else None
        if kept is None and _holds(offered, end):
            kept = offered
        self._states[work.sequence] = _State(end, kept, _read(self._slots or []))
        row: torch.Tensor = output.logits[0, -1]
        return row

    def _call(self, inputs: dict[str, Any], values: list[Any]) -> Any:
        """One forward, from what the model keeps inside of itself for the sequence."""
        for (module, name), value in zip(self._slots or [], values, strict=True):
            setattr(module, name, value)
        output = self._model(**inputs, return_dict=True)
        if self._slots is None:
            before, after = self._untouched, _kept_inside(self._model)
            self._slots = [slot for slot, value in after.items() if value is not before.get(slot)]
            self._initial = [before.get(slot) for slot in self._slots]
            self._untouched = {}
        return output

    def _new_cache(self) -> Any:
        supports = getattr(self._model, "_supports_default_dynamic_cache", None)
        if supports is None or not supports():
            return None
        return DynamicCache(config=self._model.config.get_text_config(decoder=True))


def _holds(cache: Any, tokens: int) -> bool:
    """Whether a cache that is not given back (RecurrentGemma) was filled all the same."""
    try:
        return cache is not None and bool(cache.get_seq_length() == tokens)
    except (AttributeError, ValueError):
        return False


def _kept_inside(model: torch.nn.Module) -> dict[Slot, Any]:
    """Tensors that modules hold as plain attributes, or places for them. Some models keep the
    state of a sequence there (RecurrentGemma): what a forward changes is that."""
    return {
        (module, name): value
        for module in model.modules()
        for name, value in vars(module).items()
        if value is None or isinstance(value, torch.Tensor)
    }


def _read(slots: Items[Slot]) -> list[Any]:
    return [getattr(module, name) for module, name in slots]


def _library_cuts() -> bool:
    from transformers import GenerationMixin

    return takes(GenerationMixin.prepare_inputs_for_generation, "next_sequence_length")
