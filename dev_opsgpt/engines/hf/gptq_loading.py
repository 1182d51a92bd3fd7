"""A packed checkpoint (GPTQ, AWQ) as the state dict of the float model that it stands for.

Nothing is unpacked ahead: each layer is when it is put into the model, so beside the model itself
memory holds no more than the few layers that are on their way.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dev_opsgpt.engines.hf.checkpoint import Checkpoint, Lazy, raise_faults
from dev_opsgpt.engines.hf.gptq import PackedLinear, dequantise
from dev_opsgpt.engines.hf.gptq_checks import (
    PARTS,
    layer_bits,
    layout_faults,
    packed_layers,
    value_faults,
)
from dev_opsgpt.engines.hf.quantised import PackedFormat
from dev_opsgpt.engines.hf.source import read_json
from dev_opsgpt.worker.engine import EngineError


def own_description(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a folder says of how its weights are quantised, None where it says nothing."""
    said = config.get("quantization_config")
    return said if isinstance(said, dict) else read_json(folder / "quantize_config.json")


class PackedCheckpoint:
    """A checkpoint whose layers are packed as ``form`` says, for the model ``skeleton`` (which may
    be on the meta device)."""

    def __init__(
        self, folder: Path, checkpoint: Checkpoint, form: PackedFormat, skeleton: nn.Module
    ) -> None:
        self._folder = folder
        self._checkpoint = checkpoint
        self.form = form
        self._modules = dict(skeleton.named_modules())
        self.layers = packed_layers(checkpoint.heads)

    def check(self) -> None:
        """Raises ``EngineError`` that names the tensors which are damaged."""
        if not self.layers:
            raise EngineError(
                f"{self._folder} holds no {self.form.method} weights (no tensor ends in .qweight)."
            )
        heads = self._checkpoint.heads
        raise_faults(
            self._folder,
            [
                fault
                for layer in self.layers
                for fault in layout_faults(layer, heads, self.form, self._inputs(layer))
            ],
        )
        raise_faults(self._folder, list(self._content_faults()))

    def state_dict(self, dtype: torch.dtype, device: torch.device) -> dict[str, Lazy]:
        """The float model's tensors by name; packed ones are computed on ``device``."""
        parts = {f"{layer}.{part}" for layer in self.layers for part in PARTS}
        left_out = parts | set(self._idle_biases())
        state = {
            name: self._stored(name) for name in self._checkpoint.heads if name not in left_out
        }
        for layer in self.layers:
            state[f"{layer}.weight"] = self._unpacked(layer, dtype, device)
        return state

    def packed(self, layer: str, device: torch.device) -> PackedLinear:
        """A layer's tensors, on a device."""
        heads, form = self._checkpoint.heads, self.form
        read: dict[str, Tensor] = {
            part: self._checkpoint.read(f"{layer}.{part}").to(device)
            for part in PARTS
            if f"{layer}.{part}" in heads
        }
        inputs = self._inputs(layer)
        g_idx = read.get("g_idx")
        if inputs is None and g_idx is not None:
            inputs = int(g_idx.shape[0])
        bits = form.bits
        if inputs is not None:
            bits = layer_bits(heads[f"{layer}.qweight"], inputs, form)
        size = form.group_size
        if form.varies and inputs is not None:
            size = -(-inputs // int(read["scales"].shape[0]))
        return PackedLinear(
            qweight=read["qweight"],
            qzeros=read["qzeros"],
            scales=read["scales"],
            g_idx=g_idx,
            bits=bits,
            group_size=size,
            zero_offset=form.zero_offset,
            awq=form.method == "awq",
        )

    def _inputs(self, layer: str) -> int | None:
        """How many inputs the model has at a layer, None where it has no layer of that name (the
        experts of a mixture are one tensor in the model)."""
        module: Any = self._modules.get(layer)
        if isinstance(module, nn.Linear):
            return module.in_features
        return int(module.weight.shape[0]) if _is_conv1d(module) else None

    def _stored(self, name: str) -> Lazy:
        return Lazy(lambda: self._checkpoint.read(name))

    def _unpacked(self, layer: str, dtype: torch.dtype, device: torch.device) -> Lazy:
        transposed = _is_conv1d(self._modules.get(layer))

        def make() -> Tensor:
            weight = dequantise(self.packed(layer, device), dtype)
            return weight.t().contiguous() if transposed else weight

        return Lazy(make)

    def _content_faults(self) -> Iterator[str]:
        read, heads = self._checkpoint.read, self._checkpoint.heads
        for layer in self.layers:
            g_idx = read(f"{layer}.g_idx") if f"{layer}.g_idx" in heads else None
            yield from value_faults(layer, read(f"{layer}.scales"), g_idx)
        for name in self._idle_biases():
            if bool(read(name).any()):
                yield f"{name} is not zero, and the model has no bias there"

    def _idle_biases(self) -> Iterator[str]:
        """Biases of layers that have none in the model: older tools wrote zeros."""
        for layer in self.layers:
            module = self._modules.get(layer)
            name = f"{layer}.bias"
            if (
                name in self._checkpoint.heads
                and module is not None
                and getattr(module, "bias", None) is None
            ):
                yield name


def _is_conv1d(module: Any) -> bool:
    """Whether a layer is GPT-2's, whose weight is [in, out]."""
    return type(module).__name__ == "Conv1D"
