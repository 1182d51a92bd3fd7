"""Attention of a step's row of tokens over the key-value store, called by the model's layers.

transformers lets a name stand for an attention function that a model's layers call with their
queries, keys and values (``AttentionInterface``). Ours writes the keys and values into the store,
then lets each token look at those of its own sequence. What a layer says of itself (scaling,
sliding window, soft cap, sinks) comes with the call.
"""

from typing import Any

import torch

from dev_opsgpt.engines.hf.kv_store import KeyValueStore
from dev_opsgpt.engines.hf.layout import Layout
from dev_opsgpt.engines.hf.products import (
    piece_by_hand,
    piece_by_kernel,
    rows_by_hand,
    rows_by_kernel,
)
from dev_opsgpt.engines.hf.visibility import Piece, Visibility

_HARMLESS = frozenset({"dropout", "position_ids", "cache_position", "position_embeddings"})
"""What layers say to attention functions without changing what these have to compute."""


class StoreAttention:
    """The attention function of one model, over a store of its own."""

    def __init__(self) -> None:
        self.store = KeyValueStore()
        self._layout: Layout | None = None
        self._seen: dict[torch.device, Visibility] = {}
        self._called: set[int] = set()

    def begin(self, layout: Layout | None) -> None:
        """The step that the calls from now on belong to; None after the last."""
        self._layout = layout
        self._seen.clear()
        self._called.clear()

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        **more: Any,
    ) -> tuple[torch.Tensor, None]:
        """``query`` is 1 x heads x tokens x width, the answer 1 x tokens x heads x width. Raises
        ``NotImplementedError`` where a layer asks for what we cannot know to be right."""
        if attention_mask is not None or not plain(more):
            raise NotImplementedError("attention that is more than causal")
        layer: int = module.layer_idx  # type: ignore[assignment]
        if layer in self._called:
            # A loop over layers: each turn has keys of its own, and the store one place for them.
            raise NotImplementedError("a layer that is called twice")
        self._called.add(layer)
        seen = self._visibility(key)
        self.store.write(layer, key, value, seen.slots, sliding_window)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        out = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
        exact = softcap is not None or s_aux is not None
        for rows in seen.rows(sliding_window):
            place = slice(rows.start, rows.start + rows.count)
            asked = query[0, :, place]
            known = self.store.read(layer, rows.blocks)
            if exact or query.device.type == "cpu":
                out[place] = rows_by_hand(asked * scale, *known, rows, softcap, s_aux)
            else:
                out[place] = rows_by_kernel(asked, *known, rows, scale)
        for piece in seen.pieces(sliding_window):
            place = slice(piece.chunk.start, piece.chunk.start + piece.chunk.count)
            asked = query[0, :, place]
            known = self._known(layer, key, value, piece)
            if exact:
                out[place] = piece_by_hand(asked * scale, *known, piece, softcap, s_aux)
            else:
                out[place] = piece_by_kernel(asked, *known, piece, scale)
        return out[None], None

    def _visibility(self, key: torch.Tensor) -> Visibility:
        """Of the step, where this layer computes."""
        if self._layout is None:
            raise RuntimeError("the layers of this model are called by a batcher only")
        found = self._seen.get(key.device)
        if found is None:
            found = Visibility(self._layout, key.device, key.dtype)
            self._seen[key.device] = found
        return found

    def _known(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, piece: Piece
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values that a piece looks at. With nothing before it they are its own."""
        chunk = piece.chunk
        if chunk.past == 0:
            place = slice(chunk.start, chunk.start + chunk.count)
            return key[0, :, place], value[0, :, place]
        length = chunk.past + chunk.count - chunk.first
        keys, values = self.store.read(layer, piece.blocks)
        return keys[:, :length], values[:, :length]


def plain(more: dict[str, Any]) -> bool:
    """Whether what else a layer says changes nothing of what is computed. What is unknown might
    (a sparse choice of keys, a bias by position), perhaps only where a text is long."""
    if more.get("is_causal") is False:
        return False
    return all(
        value is None or isinstance(value, bool) or name in _HARMLESS
        for name, value in more.items()
    )
