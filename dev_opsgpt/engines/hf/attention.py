"""Attention of a step's row of tokens over the key-value store, called by the model's layers.

transformers lets a name stand for an attention function that a model's layers call with their
queries, keys and values (``AttentionInterface``). Ours writes the keys and values into the store,
then lets each token look at those of its own sequence. What a layer says of itself (scaling,
sliding window, soft cap, sinks) comes with the call.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention

from dev_opsgpt.engines.hf.blocks import BLOCK
from dev_opsgpt.engines.hf.layout import Chunk, Group, Layout

WASTE = {"cpu": 24}
WASTE_ELSEWHERE = 2048
"""How many blocks may be computed in vain to save a group: what starting one costs by device."""


_HARMLESS = frozenset({"dropout", "position_ids", "cache_position", "position_embeddings"})
"""What layers say to attention functions without changing what these have to compute."""


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


@dataclass(frozen=True)
class _Rows:
    """A ``Group`` on its device; ``bias`` is rows x keys, 0 or minus infinity."""

    start: int
    count: int
    blocks: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class _Piece:
    """A ``Chunk`` on its device; ``bias`` is tokens x keys, None where it is plainly causal and
    there is nothing before it."""

    chunk: Chunk
    blocks: torch.Tensor
    bias: torch.Tensor | None


@dataclass
class _Step:
    """One step on one device, its parts made when a layer first asks for them."""

    layout: Layout
    device: torch.device
    slots: torch.Tensor
    rows: dict[int | None, list[_Rows]] = field(default_factory=dict)
    pieces: dict[int | None, list[_Piece]] = field(default_factory=dict)


class StoreAttention:
    """The attention function, and the store: a key and a value tensor a layer, each heads x
    blocks x ``BLOCK`` x width, so that a gather of blocks gives a head's keys in one piece."""

    def __init__(self) -> None:
        self.shapes: dict[int, LayerShape] = {}
        self.calls = 0
        self._blocks = 0
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}
        self._layout: Layout | None = None
        self._steps: dict[torch.device, _Step] = {}
        self._gathered = _Gathered()

    def resize(self, blocks: int) -> None:
        """A new, empty store of that many blocks; its memory is taken when layers first write."""
        self._blocks = blocks
        self._keys.clear()
        self._values.clear()
        self._gathered = _Gathered()

    def begin(self, layout: Layout | None) -> None:
        """The step that the calls from now on belong to; None after the last."""
        self._layout = layout
        self._steps.clear()

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
        """``query`` is 1 x heads x tokens x width, the answer 1 x tokens x heads x width."""
        if self._layout is None:
            raise RuntimeError("the layers of this model are called by a batcher only")
        if attention_mask is not None or not _plain(more):
            raise NotImplementedError("attention that is more than causal")
        layer: int = module.layer_idx  # type: ignore[assignment]
        self.calls += 1
        keys, values = self._write(layer, key, value, sliding_window)
        step = self._steps[key.device]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        out = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
        exact = softcap is not None or s_aux is not None
        for rows in self._rows(step, sliding_window):
            place = slice(rows.start, rows.start + rows.count)
            asked = query[0, :, place]
            seen = self._gathered(keys, values, rows.blocks)
            if exact or query.device.type == "cpu":
                found = _rows_by_hand(asked * scale, *seen, rows, softcap, s_aux)
            else:
                found = _rows_by_kernel(asked, *seen, rows, scale)
            out[place] = found
        for piece in self._pieces(step, sliding_window):
            chunk = piece.chunk
            place = slice(chunk.start, chunk.start + chunk.count)
            if chunk.past == 0:
                seen = key[0, :, place], value[0, :, place]
            else:
                length = chunk.past + chunk.count - chunk.first
                every = self._gathered(keys, values, piece.blocks)
                seen = every[0][:, :length], every[1][:, :length]
            asked = query[0, :, place]
            if exact:
                out[place] = _piece_by_hand(asked * scale, *seen, piece, softcap, s_aux)
            else:
                out[place] = _piece_by_kernel(asked, *seen, piece, scale)
        return out[None], None

    def _write(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys = self._keys.get(layer)
        if keys is None:
            keys = self._allocate(layer, key, value, window)
        values = self._values[layer]
        step = self._steps.get(key.device)
        if step is None:
            assert self._layout is not None  # noqa: S101 (for the type checker; said above)
            slots = torch.from_numpy(self._layout.slots).to(key.device, non_blocking=True)
            step = self._steps[key.device] = _Step(self._layout, key.device, slots)
        keys.flatten(1, 2).index_copy_(1, step.slots, key[0])
        values.flatten(1, 2).index_copy_(1, step.slots, value[0])
        return keys, values

    def _allocate(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> torch.Tensor:
        shape = LayerShape(
            key.shape[1],
            key.shape[3],
            value.shape[1],
            value.shape[3],
            window,
            key.dtype,
            key.device,
        )
        self.shapes[layer] = shape
        # Zeros, not whatever was there: what is padded is multiplied by 0, and must be finite.
        self._keys[layer] = _zeros(key, self._blocks)
        self._values[layer] = _zeros(value, self._blocks)
        return self._keys[layer]

    def _rows(self, step: _Step, window: int | None) -> list[_Rows]:
        found = step.rows.get(window)
        if found is None:
            waste = WASTE.get(step.device.type, WASTE_ELSEWHERE)
            groups = step.layout.groups(window, waste)
            dtype = next(iter(self._keys.values())).dtype
            found = step.rows[window] = [_rows_on(one, step.device, dtype) for one in groups]
        return found

    def _pieces(self, step: _Step, window: int | None) -> list[_Piece]:
        found = step.pieces.get(window)
        if found is None:
            dtype = next(iter(self._keys.values())).dtype
            chunks = step.layout.chunks(window)
            found = [_piece_on(one, window, step.device, dtype) for one in chunks]
            step.pieces[window] = found
        return found


class _Gathered:
    """Blocks of the store put one after the other, heads x tokens x width. On a CPU into the same
    memory each time: new memory costs more to get than to fill."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def __call__(
        self, keys: torch.Tensor, values: torch.Tensor, blocks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of keys and of values; they last until the next call."""
        found = self._gather("keys", keys, blocks), self._gather("values", values, blocks)
        return found[0].flatten(1, 2), found[1].flatten(1, 2)

    def _gather(self, name: str, store: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        if store.device.type != "cpu":
            return store.index_select(1, blocks)
        shape = (store.shape[0], len(blocks), BLOCK, store.shape[3])
        wanted = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or len(kept) < wanted or kept.dtype != store.dtype:
            kept = self._kept[name] = store.new_empty(wanted + wanted // 4)
        return torch.index_select(store, 1, blocks, out=kept[:wanted].view(shape))


def _zeros(like: torch.Tensor, blocks: int) -> torch.Tensor:
    """Heads x blocks x ``BLOCK`` x width. On a CPU, memory that is taken when it is first written:
    torch would write its zeros at once."""
    shape = (like.shape[1], blocks, BLOCK, like.shape[3])
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    raw = np.zeros(math.prod(shape) * like.dtype.itemsize, np.uint8)
    return torch.from_numpy(raw).view(like.dtype).view(shape)


def _plain(more: dict[str, Any]) -> bool:
    """Whether what else a layer says changes nothing of what is computed. What is unknown might
    (a sparse choice of keys, a bias by position), perhaps only where a text is long."""
    if more.get("is_causal") is False:
        return False
    return all(
        value is None or isinstance(value, bool) or name in _HARMLESS
        for name, value in more.items()
    )


def _rows_on(group: Group, device: torch.device, dtype: torch.dtype) -> _Rows:
    count, width = group.blocks.shape
    packed = torch.from_numpy(_packed(group)).to(device, non_blocking=True)
    blocks = packed[: count * width]
    hidden, length = packed[count * width :].view(2, count, 1)
    place = torch.arange(width * BLOCK, device=device)
    bias = torch.zeros(count, width * BLOCK, dtype=dtype, device=device)
    bias.masked_fill_((place < hidden) | (place >= length), float("-inf"))
    return _Rows(group.start, count, blocks, bias)


def _packed(group: Group) -> NDArray[np.int64]:
    return np.concatenate([group.blocks.ravel(), group.hidden, group.length])


def _piece_on(chunk: Chunk, window: int | None, device: torch.device, dtype: torch.dtype) -> _Piece:
    blocks = torch.from_numpy(chunk.blocks).to(device, non_blocking=True)
    if chunk.past == 0 and (window is None or chunk.count <= window):
        return _Piece(chunk, blocks, None)
    first = 0 if chunk.past == 0 else chunk.first
    asking = torch.arange(chunk.past, chunk.past + chunk.count, device=device)[:, None]
    asked = torch.arange(first, chunk.past + chunk.count, device=device)
    hidden = asked > asking
    if window is not None:
        hidden |= asked <= asking - window
    bias = torch.zeros(hidden.shape, dtype=dtype, device=device)
    return _Piece(chunk, blocks, bias.masked_fill_(hidden, float("-inf")))


def _rows_by_hand(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    rows: _Rows,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Plain products: on a CPU three times as fast as the fused kernel for single queries."""
    heads, count, group = keys.shape[0], rows.count, query.shape[0] // keys.shape[0]
    asked = query.reshape(heads, group, count, -1).transpose(1, 2)
    seen = keys.view(heads, count, -1, keys.shape[-1])
    known = values.view(heads, count, -1, values.shape[-1])
    scores = torch.matmul(asked, seen.transpose(2, 3))
    if sinks is not None:
        sinks = sinks.view(heads, 1, group, 1).expand(heads, count, group, 1)
    weights = _weights(scores, rows.bias[:, None], softcap, sinks)
    return torch.matmul(weights, known).permute(1, 0, 2, 3).reshape(count, heads * group, -1)


def _rows_by_kernel(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: _Rows, scale: float
) -> torch.Tensor:
    """The queries of heads that share a key stand as rows of one, so nothing is repeated."""
    heads, count, group = keys.shape[0], rows.count, query.shape[0] // keys.shape[0]
    asked = query.reshape(heads, group, count, -1).permute(2, 0, 1, 3)
    seen = keys.view(heads, count, -1, keys.shape[-1])
    known = values.view(heads, count, -1, values.shape[-1])
    bias = rows.bias[:, None, None].expand(count, 1, group, -1)
    found = scaled_dot_product_attention(
        asked, seen.transpose(0, 1), known.transpose(0, 1), attn_mask=bias, scale=scale
    )
    return found.reshape(count, heads * group, -1)


def _piece_by_hand(
    query: torch.Tensor,
    seen: torch.Tensor,
    known: torch.Tensor,
    piece: _Piece,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    heads, group, count = seen.shape[0], query.shape[0] // seen.shape[0], query.shape[1]
    asked = query.reshape(heads, group * count, -1)
    scores = torch.matmul(asked, seen.transpose(1, 2)).view(heads, group, count, -1)
    bias = piece.bias
    if bias is None:
        bias = scores.new_full((count, count), float("-inf")).triu_(1)
    if sinks is not None:
        sinks = sinks.view(heads, group, 1, 1).expand(heads, group, count, 1)
    weights = _weights(scores, bias, softcap, sinks)
    found = torch.matmul(weights.view(heads, group * count, -1), known)
    return found.view(heads * group, count, -1).transpose(0, 1)


def _piece_by_kernel(
    query: torch.Tensor, seen: torch.Tensor, known: torch.Tensor, piece: _Piece, scale: float
) -> torch.Tensor:
    group = query.shape[0] // seen.shape[0]
    shared = group > 1 and (piece.bias is None or query.device.type == "cpu")
    if group > 1 and not shared:
        seen, known = seen.repeat_interleave(group, 0), known.repeat_interleave(group, 0)
    found = scaled_dot_product_attention(
        query[None],
        seen[None],
        known[None],
        attn_mask=piece.bias,
        is_causal=piece.bias is None,
        scale=scale,
        enable_gqa=shared,
    )
    return found[0].transpose(0, 1)


def _weights(
    scores: torch.Tensor, bias: torch.Tensor, softcap: float | None, sinks: torch.Tensor | None
) -> torch.Tensor:
    """Softmax in 32 bits. A sink is a score more that takes weight and gives no value."""
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + bias
    if sinks is None:
        return torch.softmax(scores, -1, dtype=torch.float32).to(scores.dtype)
    with_sink = torch.cat([scores, sinks.to(scores.dtype)], -1)
    return torch.softmax(with_sink, -1, dtype=torch.float32)[..., :-1].to(scores.dtype)
