"""How the tokens of one step lie in one row, and which blocks each of them looks at: pure.

Tokens that are alone in their sequence's work (most of all those that generate) come first, sorted
by what they look back at, so that neighbours of like length are computed together; then the longer
pieces of prompts.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dev_opsgpt.engines.hf.blocks import BLOCK
from dev_opsgpt.engines.hf.scheduler import Work

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Single tokens at ``start .. start + rows - 1`` of the row, computed together.

    ``blocks`` is rows x width, each line the blocks that its token looks at, padded with the last.
    ``first`` is the position of the first key of each line, ``length`` how many of its keys count.
    """

    start: int
    blocks: Integers
    hidden: Integers
    """Keys at the beginning of each line that are out of the window."""
    length: Integers


@dataclass(frozen=True)
class Chunk:
    """``count`` tokens of one sequence at ``start`` of the row; ``past`` tokens come before them.

    ``blocks`` hold the keys from position ``first`` on, those of the chunk included.
    """

    start: int
    count: int
    past: int
    first: int
    blocks: Integers


@dataclass(frozen=True)
class Layout:
    """One step. ``slots`` says where in the store each token's key goes."""

    works: list[Work]
    tokens: Integers
    positions: Integers
    slots: Integers
    singles: list[Work]
    pieces: list[tuple[int, Work]]
    """Each with its start in the row."""

    def ends(self) -> tuple[list[Work], list[int]]:
        """The works after which a token is chosen, and where in the row each ends."""
        places = [*enumerate(self.singles), *((s + w.count - 1, w) for s, w in self.pieces)]
        chosen = [(place, work) for place, work in places if work.last]
        return [work for _, work in chosen], [place for place, _ in chosen]

    def groups(self, window: int | None, waste: int) -> list[Group]:
        """The single tokens in groups. A group may compute ``waste`` blocks, or a quarter, more
        than its tokens look at."""
        spans = [_span(work.start + 1, window) for work in self.singles]
        found = []
        for begin, end in _split([last - first for first, last in spans], waste):
            found.append(_group(self.singles[begin:end], spans[begin:end], begin, window))
        return found

    def chunks(self, window: int | None) -> list[Chunk]:
        """The longer pieces."""
        found = []
        for start, work in self.pieces:
            first = 0 if window is None else max(0, work.start + 1 - window) // BLOCK
            last = -(-(work.start + work.count) // BLOCK)
            blocks = np.array(work.sequence.table.blocks[first:last], np.int64)
            found.append(Chunk(start, work.count, work.start, first * BLOCK, blocks))
        return found


def lay_out(works: Items[Work]) -> Layout:
    """Puts the works of a step into one row."""
    singles = sorted((work for work in works if work.count == 1), key=lambda work: work.start)
    several = [work for work in works if work.count > 1]
    ordered = [*singles, *several]
    pieces, start = [], len(singles)
    for work in several:
        pieces.append((start, work))
        start += work.count
    tokens: list[int] = []
    positions, slots = [], []
    for work in ordered:
        end = work.start + work.count
        tokens += work.sequence.tokens[work.start : end]
        where = np.arange(work.start, end)
        table = work.sequence.table.blocks
        if work.count == 1:
            slots.append(np.array([table[work.start // BLOCK] * BLOCK + work.start % BLOCK]))
        else:
            slots.append(np.array(table, np.int64)[where // BLOCK] * BLOCK + where % BLOCK)
        positions.append(where)
    return Layout(
        ordered,
        np.array(tokens, np.int64),
        np.concatenate(positions),
        np.concatenate(slots),
        singles,
        pieces,
    )


def _span(length: int, window: int | None) -> tuple[int, int]:
    """The blocks, from and to, that the last of ``length`` tokens looks at."""
    first = 0 if window is None else max(0, length - window) // BLOCK
    return first, -(-length // BLOCK)


def _split(widths: list[int], waste: int) -> list[tuple[int, int]]:
    """Cuts the ascending widths into runs, from the widest down, that pad little."""
    cuts, end = [], len(widths)
    while end:
        begin, used = end, 0
        while begin:
            used += widths[begin - 1]
            padded = (end - begin + 1) * widths[end - 1]
            if padded - used > max(waste, used // 4):
                break
            begin -= 1
        cuts.append((begin, end))
        end = begin
    return cuts[::-1]


def _group(
    works: list[Work], spans: list[tuple[int, int]], start: int, window: int | None
) -> Group:
    width = max(last - first for first, last in spans)
    blocks = np.zeros((len(works), width), np.int64)
    hidden = np.zeros(len(works), np.int64)
    length = np.zeros(len(works), np.int64)
    for row, (work, (first, last)) in enumerate(zip(works, spans, strict=True)):
        blocks[row, : last - first] = work.sequence.table.blocks[first:last]
        # Its own: in another's might be what is no number, and a weight of 0 does not hide that.
        blocks[row, last - first :] = blocks[row, last - first - 1]
        length[row] = work.start + 1 - first * BLOCK
        if window is not None:
            hidden[row] = max(0, work.start + 1 - window - first * BLOCK)
    return Group(start, blocks, hidden, length)
