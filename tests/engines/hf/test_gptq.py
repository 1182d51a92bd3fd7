"""Packed integers against their definition."""

import pytest
import torch
from gptq_quantiser.packing import pack
from torch import Tensor

from dev_opsgpt.engines.hf.gptq import BITS, PackedLinear, dequantise, unpack

# AutoAWQ packs column ORDER[i] of every eight into the i-th nibble of a word.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def random_integers(bits: int, rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(bits * 1000 + rows)
    return torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.int32)


@pytest.mark.parametrize("bits", BITS)
def test_unpacking_turns_packing_round(bits: int) -> None:
    values = random_integers(bits, 96, 5)
    assert torch.equal(unpack(pack(values, bits), bits), values)


def test_three_bits_by_hand() -> None:
    # Eleven integers: the last one has two bits in the first word and one in the second.
    values = torch.zeros(32, 1, dtype=torch.int32)
    values[0], values[10] = 5, 0b110
    words = pack(values, 3)
    assert words[:, 0].tolist() == [5 + (0b10 << 30) - 2**32, 1, 0]
    assert torch.equal(unpack(words, 3), values)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_weight_is_scale_times_integer_less_zero(bits: int, version: int, ordered: bool) -> None:
    inputs, outputs, size = 320, 64, 128  # more than one slab, and a last group that is smaller
    groups = -(-inputs // size)
    q, zeros = random_integers(bits, inputs, outputs), random_integers(bits, groups, outputs)
    scales = torch.rand(groups, outputs).half()
    index = torch.arange(inputs) // size
    if ordered:
        index = index[torch.randperm(inputs, generator=torch.Generator().manual_seed(1))]
    stored = (zeros - (1 if version == 1 else 0)) & (2**bits - 1)
    layer = PackedLinear(
        pack(q, bits),
        pack(stored.t(), bits).t().contiguous(),
        scales,
        index.int() if ordered else None,
        bits,
        size,
        zero_offset=1 if version == 1 else 0,
    )
    wanted = scales.float()[index] * (q - zeros[index])
    assert torch.equal(dequantise(layer, torch.float32), wanted.t())
    assert (layer.inputs, layer.outputs) == (inputs, outputs)


def test_one_group() -> None:
    q = random_integers(4, 64, 8)
    words = torch.zeros(1, 1, dtype=torch.int32)
    layer = PackedLinear(pack(q, 4), words, torch.ones(1, 8).half(), None, 4, -1, zero_offset=0)
    assert torch.equal(dequantise(layer, torch.bfloat16), q.t().to(torch.bfloat16))


def pack_awq(values: Tensor) -> Tensor:
    """[n, out] of nibbles gives int32 [n, out / 8]."""
    eights = values.long().reshape(values.shape[0], -1, 8)
    words = sum(eights[..., column] << (4 * nibble) for nibble, column in enumerate(ORDER))
    assert isinstance(words, Tensor)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def test_awq() -> None:
    q, zeros = random_integers(4, 128, 32), random_integers(4, 2, 32)
    scales = torch.rand(2, 32).half()
    layer = PackedLinear(pack_awq(q), pack_awq(zeros), scales, None, 4, 64, zero_offset=0, awq=True)
    index = torch.arange(128) // 64
    wanted = scales.float()[index] * (q - zeros[index])
    assert torch.equal(dequantise(layer, torch.float32), wanted.t())
