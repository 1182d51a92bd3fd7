"""Integers into int32 words, as GPTQ checkpoints have them (``dev_opsgpt/engines/hf/gptq.py``
describes the layout, and unpacks it)."""

import torch
from torch import Tensor

from gptq_quantiser.solver import Solved

WORD = 32


def pack(values: Tensor, bits: int) -> Tensor:
    """[n, columns] of integers gives int32 [n * bits / 32, columns]: a stream of bits down each
    column, lowest first. An integer may span two words."""
    count = values.shape[0]
    if count * bits % WORD:
        raise ValueError(f"{count} integers of {bits} bits do not fill words of {WORD}")
    words = torch.zeros(count * bits // WORD, values.shape[1], dtype=torch.int64)
    for index in range(count):
        word, shift = divmod(index * bits, WORD)
        shifted = values[index].to(torch.int64) << shift
        words[word] |= shifted & 0xFFFFFFFF
        if shift + bits > WORD:
            words[word + 1] |= shifted >> WORD
    return torch.where(words >= 2**31, words - 2**32, words).int()


def packed_tensors(name: str, solved: Solved, bits: int, version: int) -> dict[str, Tensor]:
    """The four tensors of one layer. Version 1 stores a zero point less one, version 2 as it is."""
    stored = (solved.zeros - (1 if version == 1 else 0)) & (2**bits - 1)
    return {
        f"{name}.qweight": pack(solved.q, bits),
        f"{name}.qzeros": pack(stored.t(), bits).t().contiguous(),
        f"{name}.scales": solved.scales,
        f"{name}.g_idx": solved.g_idx,
    }
