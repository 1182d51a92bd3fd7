"""All tokens of a step in one row, through one forward: the way for models whose layers leave
attention to a function of ours, and mix tokens nowhere else."""

from collections.abc import Sequence as Items
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface

from dev_opsgpt.engines.hf.attention import StoreAttention
from dev_opsgpt.engines.hf.layout import lay_out
from dev_opsgpt.engines.hf.packing import PackedLinears
from dev_opsgpt.engines.hf.parameters import takes
from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.scheduler import Work


class FlatRunner:
    """Runs a model with ``StoreAttention`` in its layers, from ``enter`` to ``leave``."""

    states = False
    whole_prompts = False
    one_at_a_time = False
    packed: PackedLinears | None = None
    """The model's weights, to be unpacked in the end."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.attention = StoreAttention()
        self._model = model
        self._device = device
        self._keeps_logits = takes(model.forward, "logits_to_keep")
        self._before: str | None = None

    def enter(self) -> None:
        """Puts our attention into the model's layers."""
        self._before = self._model.config._attn_implementation
        # A name of its own for each: two batchers in one process do not meet.
        name = f"opsgpt_{id(self.attention):x}"
        AttentionInterface.register(name, self.attention)
        self._model.set_attn_implementation(name)
        if self._model.config._attn_implementation != name:
            raise NotImplementedError("this model's attention cannot be replaced")

    def leave(self) -> None:
        """Puts back what was there, and lets go of the store."""
        self.attention.begin(None)
        self.attention.store.resize(0)
        if self.packed is not None:
            self.packed.unpack()
        if self._before is not None:
            self._model.set_attn_implementation(self._before)

    def run(self, works: Items[Work]) -> tuple[list[Work], torch.Tensor]:
        """All works in one forward."""
        layout = lay_out(works)
        ends, places = layout.ends()
        numbers = np.concatenate([layout.tokens, layout.positions, np.array(places, np.int64)])
        moved = torch.from_numpy(numbers).to(self._device, non_blocking=True)
        total = len(layout.tokens)
        # Nothing to choose from still needs a place: some models cannot give no logits at all.
        keep = moved[2 * total :] if places else moved[:1] * 0
        more = {"logits_to_keep": keep} if self._keeps_logits else {}
        self.attention.begin(layout)
        try:
            output = self._model(
                input_ids=moved[None, :total],
                position_ids=moved[None, total : 2 * total],
                use_cache=False,
                return_dict=True,
                **more,
            )
        finally:
            self.attention.begin(None)
        logits = output.logits[0]
        if not self._keeps_logits:
            logits = logits[keep.to(logits.device)]
        return ends, logits[: len(ends)]

    @property
    def bytes_per_token(self) -> int:
        """Of the store, as the layers' shapes in the trial say."""
        return sum(shape.bytes_per_token for shape in self.attention.store.shapes.values())

    def resize(self, blocks: int) -> None:
        """A new store of that many blocks."""
        self.attention.store.resize(blocks)

    def clear(self, blocks: Items[int]) -> None:
        """See ``Runner``."""
        self.attention.store.clear(blocks)

    def hand_on(self, old: Running, new: Running) -> None:
        """Not asked for: beginnings are taken over block by block."""

    def forget(self, sequence: Running) -> None:
        """Its blocks are the pool's, there is nothing else."""
