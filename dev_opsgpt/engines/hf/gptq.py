"""GPTQ's and AWQ's packed integers, unpacked to floats. Pure.

GPTQ (the layout of AutoGPTQ and GPTQModel) stores a linear layer ``y = x @ w`` of ``in`` inputs
and ``out`` outputs as

- ``qweight`` int32 [in * bits / 32, out]: down each column a stream of ``bits``-wide integers,
  lowest bits first; with 3 bits some of them span two words,
- ``qzeros`` int32 [groups, out * bits / 32]: the same along each row; version 1 ("gptq") stores the
  zero point less one, version 2 ("gptq_v2") the zero point itself,
- ``scales`` float [groups, out],
- ``g_idx`` int32 [in]: the group of each input. Where it is left out, groups are runs of inputs;
  with ``desc_act`` they are not, because the inputs were quantised in order of activation,

and ``w[i, o] = scales[g_idx[i], o] * (q[i, o] - zero[g_idx[i], o])``.

AWQ (AutoAWQ's "gemm" layout, 4 bits) packs ``qweight`` int32 [in, out / 8] along the outputs too,
in words whose nibbles hold the columns 0, 2, 4, 6, 1, 3, 5, 7, and has no ``g_idx``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

WORD = 32
BITS = (2, 3, 4, 8)
# Inputs unpacked in one go: what bounds the memory that unpacking takes beyond its result.
_SLAB = 256
# Where AWQ's columns 0 to 7 lie among the nibbles of a word.
_AWQ_NIBBLES = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True)
class PackedLinear:
    """The tensors of one linear layer. ``group_size`` counts inputs, -1 is one group; it counts
    where there is no ``g_idx``. ``zero_offset`` is what has to be added to a stored zero point: 1
    for version 1, 0 for version 2 and AWQ."""

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    g_idx: Tensor | None
    bits: int
    group_size: int
    zero_offset: int
    awq: bool = False

    @property
    def inputs(self) -> int:
        """How many inputs the layer has."""
        rows = int(self.qweight.shape[0])
        return rows if self.awq else rows * WORD // self.bits

    @property
    def outputs(self) -> int:
        """How many outputs the layer has."""
        return int(self.scales.shape[1])


def dequantise(layer: PackedLinear, dtype: torch.dtype) -> Tensor:
    """The weight as ``torch.nn.Linear`` has it, [out, in], of type ``dtype``, on the CPU or where
    the tensors are. It is computed in float32, slab by slab."""
    mask = 2**layer.bits - 1
    # Version 1 stores a zero point of 0 as the largest integer.
    zeros = (_along_rows(layer.qzeros, layer) + layer.zero_offset) & mask
    scales = layer.scales.float()
    groups = group_index(layer)
    weight = torch.empty(layer.outputs, layer.inputs, dtype=dtype, device=layer.qweight.device)
    for start in range(0, layer.inputs, _SLAB):
        stop = min(start + _SLAB, layer.inputs)
        group = groups[start:stop]
        values = _inputs(layer, start, stop) - zeros[group]
        weight[:, start:stop] = (values * scales[group]).t()
    return weight


def group_index(layer: PackedLinear) -> Tensor:
    """The group of each input, int64 [in]."""
    if layer.g_idx is not None:
        return layer.g_idx.long()
    size = layer.group_size if layer.group_size > 0 else layer.inputs
    return torch.arange(layer.inputs, device=layer.qweight.device) // size


def unpack(words: Tensor, bits: int) -> Tensor:
    """The integers in int32 words: [n, ...] gives int32 [n * 32 / bits, ...], packed along the
    first axis, lowest bits first. ``n`` is a multiple of what a whole number of integers fills."""
    mask = 2**bits - 1
    count = words.shape[0] * WORD // bits
    pieces = list(_places(bits))
    period = words.reshape(-1, bits // _common(bits), *words.shape[1:])
    columns = []
    for word, shift in pieces:
        value = period[:, word] >> shift
        if shift + bits > WORD:  # the rest is in the next word
            value = (value & (2 ** (WORD - shift) - 1)) | (period[:, word + 1] << (WORD - shift))
        columns.append(value & mask)
    return torch.stack(columns, dim=1).reshape(count, *words.shape[1:])


def _places(bits: int) -> Iterator[tuple[int, int]]:
    """Word and shift of each integer, up to where the pattern begins anew."""
    for index in range(WORD // _common(bits)):
        yield divmod(index * bits, WORD)


def _common(bits: int) -> int:
    """Greatest common divisor of ``bits`` and the width of a word."""
    return bits & -bits


def _inputs(layer: PackedLinear, start: int, stop: int) -> Tensor:
    """The integers of some inputs, int32 [stop - start, out]. ``start`` begins a word."""
    if layer.awq:
        return _along_rows(layer.qweight[start:stop], layer)
    first, last = start * layer.bits // WORD, stop * layer.bits // WORD
    return unpack(layer.qweight[first:last], layer.bits)


def _along_rows(words: Tensor, layer: PackedLinear) -> Tensor:
    """Words that are packed along the outputs: [n, out * bits / 32] gives int32 [n, out]."""
    values = unpack(words.t().contiguous(), layer.bits).t()
    if not layer.awq:
        return values
    return values.reshape(values.shape[0], -1, len(_AWQ_NIBBLES))[..., _AWQ_NIBBLES].reshape(
        values.shape
    )
