"""What is wrong with a packed checkpoint, told tensor by tensor. Pure."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dev_opsgpt.engines.hf.gptq import WORD
from dev_opsgpt.engines.hf.quantised import PackedFormat
from dev_opsgpt.engines.hf.safetensors_header import TensorHead

PARTS = ("qweight", "qzeros", "scales", "g_idx")
_FLOATS = ("F16", "BF16", "F32")


def packed_layers(heads: Mapping[str, TensorHead]) -> list[str]:
    """The names of the layers that are packed, whole or not: those with an integer part."""
    ends = tuple(f".{part}" for part in PARTS)
    return sorted({name.rpartition(".")[0] for name in heads if name.endswith(ends)})


def layout_faults(
    layer: str, heads: Mapping[str, TensorHead], form: PackedFormat, inputs: int | None
) -> Iterator[str]:
    """What is wrong with a layer's tensors by their types and shapes. ``inputs`` is how many the
    model has there, where that is known."""
    parts = {part: heads.get(f"{layer}.{part}") for part in PARTS}
    qweight, qzeros, scales, g_idx = parts.values()
    for part in PARTS[:3]:
        head = parts[part]
        wanted = _FLOATS if part == "scales" else ("I32",)
        if head is None:
            yield f"{layer}.{part} is missing"
        elif head.dtype not in wanted:
            yield f"{layer}.{part} is {head.dtype}, not {' or '.join(wanted)}"
        elif len(head.shape) != 2:
            yield f"{layer}.{part} has shape {list(head.shape)}, not two dimensions"
    if g_idx is not None and (g_idx.dtype not in ("I32", "I64") or len(g_idx.shape) != 1):
        yield f"{layer}.g_idx is {g_idx}, not one row of I32"
    if qweight is None or qzeros is None or scales is None:
        return
    if all(len(head.shape) == 2 for head in (qweight, qzeros, scales)):
        yield from _shape_faults(layer, qweight, qzeros, scales, g_idx, form, inputs)


def _shape_faults(
    layer: str,
    qweight: TensorHead,
    qzeros: TensorHead,
    scales: TensorHead,
    g_idx: TensorHead | None,
    form: PackedFormat,
    known: int | None,
) -> Iterator[str]:
    groups, outputs = scales.shape
    inputs = known if known is not None else _inputs(qweight, g_idx, form)
    bits = layer_bits(qweight, inputs, form)
    size = form.group_size if form.group_size > 0 else inputs
    wanted_groups = groups if form.varies else -(-inputs // size)
    words = outputs * bits // WORD
    packed = (inputs, words) if form.method == "awq" else (inputs * bits // WORD, outputs)
    wanted: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "qweight": (qweight.shape, packed),
        "qzeros": (qzeros.shape, (wanted_groups, words)),
        "scales": (scales.shape, (wanted_groups, outputs)),
    }
    if g_idx is not None and len(g_idx.shape) == 1:
        wanted["g_idx"] = (g_idx.shape, (inputs,))
    for part, (shape, right) in wanted.items():
        if shape != right:
            yield f"{layer}.{part} has shape {list(shape)}, not {list(right)}"


def _inputs(qweight: TensorHead, g_idx: TensorHead | None, form: PackedFormat) -> int:
    if form.method == "awq":
        return qweight.shape[0]
    if g_idx is not None and len(g_idx.shape) == 1:
        return g_idx.shape[0]
    return qweight.shape[0] * WORD // form.bits


def layer_bits(qweight: TensorHead, inputs: int, form: PackedFormat) -> int:
    """The bits of one layer: the checkpoint's, or what its shape says where they vary."""
    if not form.varies or form.method == "awq" or inputs == 0:
        return form.bits
    return qweight.shape[0] * WORD // inputs


def value_faults(layer: str, scales: Tensor, g_idx: Tensor | None) -> Iterator[str]:
    """What is wrong with the content of a layer's small tensors."""
    groups = int(scales.shape[0])
    if g_idx is not None and g_idx.numel():
        low, high = int(g_idx.min()), int(g_idx.max())
        if low < 0 or high >= groups:
            yield (
                f"{layer}.g_idx names group {low if low < 0 else high}, and there are {groups} "
                f"(0 to {groups - 1})"
            )
    if not bool(torch.isfinite(scales).all()):
        yield f"{layer}.scales holds numbers that are not finite"
