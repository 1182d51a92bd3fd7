"""Weights as 8-bit integers, activations as they are: half of bfloat16's memory.

One scale a row of a weight (an output), its largest absolute value over 127. Unlike LLM.int8() of
bitsandbytes nothing depends on what else is in the batch, so that a request gets the same answer
whoever its neighbours are.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGEST = 127
_FEW_ROWS, _VECTOR = 8, 64


class Int8Linear(nn.Module):
    """``torch.nn.Linear`` with its weight in 8 bits: ``y = (x @ q.T) * scale + bias``."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        values, scale = quantise(linear.weight.detach())
        self.register_buffer("weight", values)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs, in the type of ``x``."""
        scale = self.scale.to(x.dtype)
        if _few_on_cpu(x):
            rows = x.reshape(-1, self.in_features).contiguous()
            y = torch._weight_int8pack_mm(rows, self.weight, scale)
            y = y.reshape(*x.shape[:-1], self.out_features)
        else:
            # The scales are applied to the outputs: fewer than there are weights.
            y = functional.linear(x, self.weight.to(x.dtype)) * scale
        return y if self.bias is None else y + self.bias.to(x.dtype)


def _few_on_cpu(x: Tensor) -> bool:
    """Whether PyTorch's kernel for 8-bit weights is the faster way. It reads the weights as they
    are, which for up to some ten rows takes less than turning them into floats first: a sixth of
    the time for one row, as measured with 2048 x 2048. It takes whole vectors of inputs, and reads
    beyond the end where there is a rest."""
    return (
        x.device.type == "cpu"
        and x.dtype is torch.bfloat16
        and x.shape[-1] % _VECTOR == 0
        and x.numel() <= _FEW_ROWS * x.shape[-1]
        and hasattr(torch, "_weight_int8pack_mm")
    )


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [out, in] as int8 [out, in] and float32 scales [out]."""
    floats = weight.float()
    scale = floats.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / _LARGEST
    values = (floats / scale[:, None]).round().clamp(-_LARGEST, _LARGEST)
    return values.to(torch.int8), scale


def to_int8(model: nn.Module, keep: nn.Module | None, tell: Callable[[float], None]) -> int:
    """Replaces the linear layers of a model, one after the other, but for ``keep`` (the layer that
    gives the logits, where a small error changes a choice). Gives how many there were; ``tell``
    hears how much is done, 0 to 1."""
    found = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child is not keep
    ]
    for number, (parent, name) in enumerate(found):
        # The float layer is gone before the next one is rounded.
        setattr(parent, name, Int8Linear(getattr(parent, name)))
        tell((number + 1) / len(found))
    return len(found)
