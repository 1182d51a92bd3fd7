"""Which keys each token of a step may see, as tensors on the device that computes them.

A bias is added to the scores of attention: 0 where a token looks, minus infinity where it does not.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from dev_opsgpt.engines.hf.blocks import BLOCK
from dev_opsgpt.engines.hf.layout import Chunk, Group, Layout

WASTE = {"cpu": 24}
WASTE_ELSEWHERE = 2048
"""How many blocks may be computed in vain to save a group: what starting one costs by device."""


@dataclass(frozen=True)
class Rows:
    """A ``Group``: single tokens computed together. ``bias`` is tokens x keys."""

    start: int
    count: int
    blocks: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class Piece:
    """A ``Chunk``: tokens of one sequence. ``bias`` is tokens x keys, None where it is plainly
    causal and there is nothing before it."""

    chunk: Chunk
    blocks: torch.Tensor
    bias: torch.Tensor | None


@dataclass
class Visibility:
    """One step on one device. ``slots`` say where its keys and values go; what is seen is made when
    a layer first asks, once for all layers with the same sliding window."""

    layout: Layout
    device: torch.device
    dtype: torch.dtype
    _rows: dict[int | None, list[Rows]] = field(default_factory=dict)
    _pieces: dict[int | None, list[Piece]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slots = torch.from_numpy(self.layout.slots).to(self.device, non_blocking=True)

    def rows(self, window: int | None) -> list[Rows]:
        """The tokens that are alone in their sequence's work, in groups of like length."""
        found = self._rows.get(window)
        if found is None:
            waste = WASTE.get(self.device.type, WASTE_ELSEWHERE)
            groups = self.layout.groups(window, waste)
            found = [rows_of(one, self.device, self.dtype) for one in groups]
            self._rows[window] = found
        return found

    def pieces(self, window: int | None) -> list[Piece]:
        """The longer pieces of sequences."""
        found = self._pieces.get(window)
        if found is None:
            chunks = self.layout.chunks(window)
            found = [piece_of(one, window, self.device, self.dtype) for one in chunks]
            self._pieces[window] = found
        return found


def rows_of(group: Group, device: torch.device, dtype: torch.dtype) -> Rows:
    """A group on its device; one copy."""
    count, width = group.blocks.shape
    numbers = np.concatenate([group.blocks.ravel(), group.hidden, group.length])
    packed = torch.from_numpy(numbers).to(device, non_blocking=True)
    blocks = packed[: count * width]
    hidden, length = packed[count * width :].view(2, count, 1)
    place = torch.arange(width * BLOCK, device=device)
    bias = torch.zeros(count, width * BLOCK, dtype=dtype, device=device)
    bias.masked_fill_((place < hidden) | (place >= length), float("-inf"))
    return Rows(group.start, count, blocks, bias)


def piece_of(chunk: Chunk, window: int | None, device: torch.device, dtype: torch.dtype) -> Piece:
    """A chunk on its device. Its keys begin at ``chunk.first``, but at 0 where nothing is before
    it: then they are not read from the store."""
    blocks = torch.from_numpy(chunk.blocks).to(device, non_blocking=True)
    if chunk.past == 0 and (window is None or chunk.count <= window):
        return Piece(chunk, blocks, None)
    first = 0 if chunk.past == 0 else chunk.first
    asking = torch.arange(chunk.past, chunk.past + chunk.count, device=device)[:, None]
    asked = torch.arange(first, chunk.past + chunk.count, device=device)
    hidden = asked > asking
    if window is not None:
        hidden |= asked <= asking - window
    bias = torch.zeros(hidden.shape, dtype=dtype, device=device)
    return Piece(chunk, blocks, bias.masked_fill_(hidden, float("-inf")))
