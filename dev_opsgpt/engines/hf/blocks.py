"""Which blocks of the key-value store hold what: pure bookkeeping, no tensors.

The store is cut into blocks of ``BLOCK`` tokens. A sequence holds a list of them; blocks that are
full stay known by their content after the sequence is gone, so that another one that begins alike
takes them as they are. A block that nobody holds is given away in the order of last use.
"""

from collections import OrderedDict
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

BLOCK = 16
"""Tokens in a block."""

Key = tuple[int, tuple[int, ...]]
"""A block's content: the number of the content before it (0 for none), and its tokens. Exact, so
there is no hash to collide."""


@dataclass
class Table:
    """The blocks of one sequence, in order, and how much of them is known by content."""

    blocks: list[int] = field(default_factory=list)
    contents: list[int] = field(default_factory=list)
    """Numbers of the contents of the first blocks, as far as they are full."""


def blocks_for(tokens: int) -> int:
    """How many blocks that many tokens take."""
    return -(-tokens // BLOCK)


class BlockPool:
    """Gives out the blocks ``0 .. count - 1``."""

    def __init__(self, count: int, *, reuse: bool = True) -> None:
        self.count = count
        self._reuse = reuse
        self._free = list(range(count - 1, -1, -1))
        self._holders = [0] * count
        self._keys: list[Key | None] = [None] * count
        self._known: dict[Key, tuple[int, int]] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._last_content = 0

    @property
    def available(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free) + len(self._idle)

    def match(self, tokens: Items[int]) -> list[int]:
        """The blocks that hold the beginning of ``tokens``. At least one token is left over: the
        model has to see one to say what comes next."""
        return [block for block, _ in self._walk(tokens)]

    def room_for(self, tokens: Items[int], length: int, spare: int = 0) -> bool:
        """Whether ``open`` has the blocks for ``length`` tokens, with ``spare`` left after."""
        found = self.match(tokens)
        taken = sum(block in self._idle for block in found)
        return blocks_for(length) - len(found) + taken + spare <= self.available

    def open(self, tokens: Items[int], length: int) -> tuple[Table, int]:
        """A table with room for ``length`` tokens, and how many of ``tokens`` it holds already.
        ``room_for`` has been asked before."""
        table = Table()
        for block, content in self._walk(tokens):
            self._hold(block)
            table.blocks.append(block)
            table.contents.append(content)
        held = len(table.blocks) * BLOCK
        if not self.extend(table, length):
            raise ValueError("no room was left for this sequence")
        return table, held

    def extend(self, table: Table, length: int) -> bool:
        """Gives the table room for ``length`` tokens; False, and no change, if there is none."""
        wanted = blocks_for(length) - len(table.blocks)
        if wanted > self.available:
            return False
        for _ in range(wanted):
            block = self._take()
            self._holders[block] = 1
            table.blocks.append(block)
        return True

    def learn(self, table: Table, tokens: Items[int], computed: int) -> None:
        """Makes the full blocks among the first ``computed`` of ``tokens`` known by content."""
        if not self._reuse:
            return
        for place in range(len(table.contents), computed // BLOCK):
            before = table.contents[-1] if place else 0
            key = (before, tuple(tokens[place * BLOCK : (place + 1) * BLOCK]))
            known = self._known.get(key)
            if known is None:
                self._last_content += 1
                block = table.blocks[place]
                known = self._known[key] = (block, self._last_content)
                self._keys[block] = key
            table.contents.append(known[1])

    def close(self, table: Table) -> None:
        """Takes the blocks back. The end of a sequence is forgotten before its beginning."""
        for block in reversed(table.blocks):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                if self._keys[block] is None:
                    self._free.append(block)
                else:
                    self._idle[block] = None
        table.blocks, table.contents = [], []

    def trim(self, table: Table, length: int) -> None:
        """Takes back what a table has beyond the blocks for ``length`` tokens."""
        kept = blocks_for(length)
        self.close(Table(table.blocks[kept:]))
        del table.blocks[kept:], table.contents[kept:]

    def discard(self, table: Table) -> list[int]:
        """Takes the blocks back and forgets what they held. Gives those that nobody else holds: the
        caller has to clear them."""
        gone = [block for block in table.blocks if self._holders[block] == 1]
        for block in gone:
            key = self._keys[block]
            if key is not None:
                del self._known[key]
                self._keys[block] = None
        self.close(table)
        return gone

    def _walk(self, tokens: Items[int]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        if not self._reuse:
            return found
        content = 0
        for end in range(BLOCK, len(tokens), BLOCK):
            known = self._known.get((content, tuple(tokens[end - BLOCK : end])))
            if known is None:
                break
            content = known[1]
            found.append(known)
        return found

    def _hold(self, block: int) -> None:
        self._holders[block] += 1
        self._idle.pop(block, None)

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        block, _ = self._idle.popitem(last=False)
        key = self._keys[block]
        if key is not None:
            del self._known[key]
            self._keys[block] = None
        return block
