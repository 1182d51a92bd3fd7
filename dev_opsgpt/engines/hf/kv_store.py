"""The key-value store: memory for the keys and values of all sequences, cut into blocks."""

import math
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import torch

from dev_opsgpt.engines.hf.blocks import BLOCK


@dataclass(frozen=True)
class LayerShape:
    """What a layer said of itself when it was called."""

    key_heads: int
    key_width: int
    value_heads: int
    value_width: int
    window: int | None
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Of the store, for this layer."""
        numbers = self.key_heads * self.key_width + self.value_heads * self.value_width
        return numbers * self.dtype.itemsize


class KeyValueStore:
    """A key and a value tensor a layer, each heads x blocks x ``BLOCK`` x width, so that a gather
    of blocks gives a head's keys in one piece.

    A layer's memory is taken when it first writes, in the type and on the device of what it writes.
    """

    def __init__(self) -> None:
        self.shapes: dict[int, LayerShape] = {}
        """Of every layer that ever wrote."""
        self._blocks = 0
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._gathered: dict[str, torch.Tensor] = {}

    def resize(self, blocks: int) -> None:
        """Empty, with room for that many blocks."""
        self._blocks = blocks
        self._layers.clear()
        self._gathered.clear()

    def write(
        self,
        layer: int,
        key: torch.Tensor,
        value: torch.Tensor,
        slots: torch.Tensor,
        window: int | None,
    ) -> None:
        """Puts the keys and values, each 1 x heads x tokens x width, into the ``slots``: token
        ``s % BLOCK`` of block ``s // BLOCK``."""
        if layer not in self._layers:
            self._allocate(layer, key, value, window)
        keys, values = self._layers[layer]
        keys.flatten(1, 2).index_copy_(1, slots, key[0])
        values.flatten(1, 2).index_copy_(1, slots, value[0])

    def read(self, layer: int, blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values in these blocks, one block after the other: heads x tokens x
        width. They last until the next call."""
        keys, values = self._layers[layer]
        found = self._gather("keys", keys, blocks), self._gather("values", values, blocks)
        return found[0].flatten(1, 2), found[1].flatten(1, 2)

    def clear(self, blocks: Items[int]) -> None:
        """Zeros in these blocks of every layer."""
        for keys, values in self._layers.values():
            place = torch.tensor(blocks, dtype=torch.int64, device=keys.device)
            keys.index_fill_(1, place, 0)
            values.index_fill_(1, place, 0)

    def _allocate(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> None:
        self.shapes[layer] = LayerShape(
            key.shape[1],
            key.shape[3],
            value.shape[1],
            value.shape[3],
            window,
            key.dtype,
            key.device,
        )
        # Zeros, not whatever was there: what is padded is multiplied by 0, and must be finite.
        self._layers[layer] = _zeros(key, self._blocks), _zeros(value, self._blocks)

    def _gather(self, name: str, store: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        """On a CPU into the same memory each time: new memory costs more to get than to fill."""
        if store.device.type != "cpu":
            return store.index_select(1, blocks)
        shape = (store.shape[0], len(blocks), BLOCK, store.shape[3])
        wanted = math.prod(shape)
        kept = self._gathered.get(name)
        if kept is None or len(kept) < wanted or kept.dtype != store.dtype:
            kept = self._gathered[name] = store.new_empty(wanted + wanted // 4)
        return torch.index_select(store, 1, blocks, out=kept[:wanted].view(shape))


def _zeros(like: torch.Tensor, blocks: int) -> torch.Tensor:
    """Heads x blocks x ``BLOCK`` x width. On a CPU, memory that is taken when it is first written:
    torch would write its zeros at once."""
    shape = (like.shape[1], blocks, BLOCK, like.shape[3])
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    raw = np.zeros(math.prod(shape) * like.dtype.itemsize, np.uint8)
    return torch.from_numpy(raw).view(like.dtype).view(shape)
