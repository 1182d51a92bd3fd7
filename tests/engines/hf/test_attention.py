"""The ways to compute attention agree: which one is taken depends on the device."""

from typing import Any

import pytest
import torch

from dev_opsgpt.engines.hf import products
from dev_opsgpt.engines.hf.attention import plain
from dev_opsgpt.engines.hf.blocks import BLOCK, Table
from dev_opsgpt.engines.hf.layout import lay_out
from dev_opsgpt.engines.hf.products import (
    piece_by_hand,
    piece_by_kernel,
    rows_by_hand,
    rows_by_kernel,
)
from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.scheduler import Work
from dev_opsgpt.engines.hf.sequence import Sampling
from dev_opsgpt.engines.hf.visibility import piece_of, rows_of

HEADS, KEY_HEADS, WIDTH = 6, 2, 8
CPU = torch.device("cpu")


def works(*lengths: tuple[int, int]) -> list[Work]:
    """Of sequences with so many tokens before, and so many to compute, their blocks apart."""
    found, block = [], 0
    for start, count in lengths:
        sequence = Running(list(range(start + count)), Sampling(max_tokens=1))
        needed = -(-(start + count) // BLOCK)
        sequence.table = Table(list(range(block, block + needed)))
        block += needed
        found.append(Work(sequence, start, count))
    return found


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("window", [None, 20])
def test_single_queries(window: int | None) -> None:
    layout = lay_out(works((3, 1), (40, 1), (17, 1)))
    (group,) = layout.groups(window, waste=100)
    rows = rows_of(group, CPU, torch.float32)
    query = random(HEADS, 3, WIDTH)
    keys = random(KEY_HEADS, group.blocks.size * BLOCK, WIDTH)
    values = random(KEY_HEADS, group.blocks.size * BLOCK, WIDTH + 1)
    by_hand = rows_by_hand(query * 0.3, keys, values, rows, None, None)
    by_kernel = rows_by_kernel(query, keys, values, rows, 0.3)
    assert by_hand.shape == (3, HEADS, WIDTH + 1)
    torch.testing.assert_close(by_kernel, by_hand)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("past", [0, 37])
@pytest.mark.parametrize("key_heads", [HEADS, KEY_HEADS])
def test_pieces(window: int | None, past: int, key_heads: int) -> None:
    (chunk,) = lay_out(works((past, 30))).chunks(window)
    piece = piece_of(chunk, window, CPU, torch.float32)
    length = past + 30 - (chunk.first if past else 0)
    query, keys = random(HEADS, 30, WIDTH), random(key_heads, length, WIDTH)
    values = random(key_heads, length, WIDTH)
    by_hand = piece_by_hand(query * 0.3, keys, values, piece, None, None)
    by_kernel = piece_by_kernel(query, keys, values, piece, 0.3)
    torch.testing.assert_close(by_kernel, by_hand)


@pytest.mark.parametrize("past", [0, 37])
def test_a_piece_is_the_same_in_parts(past: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (chunk,) = lay_out(works((past, 30))).chunks(None)
    piece = piece_of(chunk, None, CPU, torch.float32)
    query, keys = random(HEADS, 30, WIDTH), random(KEY_HEADS, past + 30, WIDTH)
    values = random(KEY_HEADS, past + 30, WIDTH + 1)
    whole = piece_by_hand(query, keys, values, piece, 5.0, random(HEADS))
    monkeypatch.setattr(products, "MOST_SCORES", HEADS * (past + 30) * 7)
    seen: list[int] = []
    weights = products._weights

    def watched(scores: torch.Tensor, *more: Any) -> torch.Tensor:
        seen.append(scores.shape[2])
        return weights(scores, *more)

    monkeypatch.setattr(products, "_weights", watched)
    parts = piece_by_hand(query, keys, values, piece, 5.0, random(HEADS))
    assert seen == [7, 7, 7, 7, 2]
    torch.testing.assert_close(parts, whole)


def test_sequences_of_like_length_are_computed_together() -> None:
    layout = lay_out(works(*((n, 1) for n in (900, 30, 20, 950, 5))))
    assert [work.start for work in layout.singles] == [5, 20, 30, 900, 950]
    groups = layout.groups(None, waste=5)
    assert [group.blocks.shape for group in groups] == [(3, 2), (2, 60)]
    assert [group.start for group in groups] == [0, 3]
    assert len(layout.groups(None, waste=10_000)) == 1


def test_a_window_looks_at_its_blocks_alone() -> None:
    layout = lay_out(works((900, 1), (950, 20)))
    (group,) = layout.groups(32, waste=0)
    assert group.blocks.tolist() == [[54, 55, 56]]
    # Position 900 looks at 869 to 900; the first of the three blocks begins at 864.
    assert (group.hidden.tolist(), group.length.tolist()) == ([5], [37])
    (chunk,) = layout.chunks(32)
    assert chunk.first == (951 - 32) // BLOCK * BLOCK
    assert len(chunk.blocks) == 4


def test_what_a_layer_says_that_is_unknown_is_refused() -> None:
    assert plain({"dropout": 0.0, "position_ids": random(3), "use_cache": False})
    assert not plain({"indices": random(3)})
    assert not plain({"is_causal": False})
