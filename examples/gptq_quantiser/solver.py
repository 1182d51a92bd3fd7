"""One weight matrix: the integers that change the layer's outputs least, column by column."""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 128  # columns whose errors are passed on among themselves first
DAMPING = 0.01  # of the mean of the Hessian's diagonal


@dataclass(frozen=True)
class Recipe:
    """How to quantise. ``group_size`` counts inputs, -1 is one group; ``desc_act`` takes the inputs
    in descending order of their activation; ``sym`` puts the zero point in the middle."""

    bits: int = 4
    group_size: int = 128
    sym: bool = True
    desc_act: bool = False

    @property
    def levels(self) -> int:
        """The largest integer."""
        return 2**self.bits - 1


@dataclass(frozen=True)
class Solved:
    """``q`` [in, out] and ``zeros`` [groups, out] are integers, ``scales`` [groups, out] float16,
    ``g_idx`` [in] the group of each input; ``weight`` [out, in] is what they stand for."""

    q: Tensor
    zeros: Tensor
    scales: Tensor
    g_idx: Tensor
    weight: Tensor


def solve(weight: Tensor, hessian: Tensor, recipe: Recipe) -> Solved:
    """Quantises ``weight`` [out, in]; ``hessian`` [in, in] is the sum of ``x x^T`` over inputs.

    A column is rounded, and what that changes in the outputs is made up for by the columns that
    come after it, as far as the inputs of both go together.
    """
    rest, hessian = weight.float().clone(), hessian.float().clone()
    inputs = rest.shape[1]
    size = recipe.group_size if recipe.group_size > 0 else inputs
    unused = hessian.diagonal() == 0
    hessian.diagonal()[unused] = 1
    order = torch.arange(inputs)
    if recipe.desc_act:
        order = hessian.diagonal().argsort(descending=True, stable=True)
    rest, hessian = rest[:, order], hessian[order][:, order]
    pull = _inverse_factor(hessian)
    q = torch.zeros_like(rest, dtype=torch.int32)
    zeros, scales = [], []
    for start in range(0, inputs, BLOCK):
        stop = min(start + BLOCK, inputs)
        errors = torch.zeros_like(rest[:, start:stop])
        for column in range(start, stop):
            if column % size == 0:
                scale, zero = _grid(rest[:, column : column + size], recipe)
                scales.append(scale)
                zeros.append(zero)
            values = rest[:, column]
            q[:, column] = (values / scales[-1] + zeros[-1]).round().clamp(0, recipe.levels)
            rounded = scales[-1] * (q[:, column] - zeros[-1])
            error = (values - rounded) / pull[column, column]
            rest[:, column:stop] -= error[:, None] * pull[column, column:stop]
            errors[:, column - start] = error
            rest[:, column] = rounded
        # A group's scale is taken from what its columns are by then, so all errors are passed on.
        rest[:, stop:] -= errors @ pull[start:stop, stop:]
    back = order.argsort()
    return Solved(
        q=q[:, back].t().contiguous(),
        zeros=torch.stack(zeros).int(),
        scales=torch.stack(scales).half(),
        g_idx=(back // size).int(),
        weight=rest[:, back],
    )


def round_to_nearest(weight: Tensor, recipe: Recipe) -> Tensor:
    """The weight with each column rounded by itself: what GPTQ has to be better than."""
    rounded = weight.float().clone()
    size = recipe.group_size if recipe.group_size > 0 else weight.shape[1]
    for start in range(0, weight.shape[1], size):
        part = rounded[:, start : start + size]
        scale, zero = (values[:, None] for values in _grid(part, recipe))
        q = (part / scale + zero).round().clamp(0, recipe.levels)
        rounded[:, start : start + size] = scale * (q - zero)
    return rounded


def _inverse_factor(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse, of a Hessian that is damped until it has one."""
    damping = DAMPING * hessian.diagonal().mean()
    for attempt in range(8):
        damped = hessian + torch.eye(len(hessian)) * damping * 4**attempt
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            inverse = torch.cholesky_inverse(factor)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed:
                return upper
    raise ValueError("the calibration text gives a Hessian that cannot be inverted")


def _grid(part: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Scale, as float16 holds it, and zero point of each output of a group [out, inputs]."""
    low, high = part.amin(dim=1).clamp(max=0), part.amax(dim=1).clamp(min=0)
    if recipe.sym:
        high = torch.maximum(high, -low)
        low = -high
    scale = ((high - low) / recipe.levels).clamp(min=1e-7).half().float()
    if recipe.sym:
        return scale, torch.full_like(scale, (recipe.levels + 1) / 2)
    # Version 1 stores the zero point less one, and readers disagree on what a 0 is then.
    return scale, (-low / scale).round().clamp(1, recipe.levels)
