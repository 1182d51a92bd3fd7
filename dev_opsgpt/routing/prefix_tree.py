"""What prompts each replica has seen, as a tree of their common beginnings, in bounded memory.

Prompts are cut into blocks of equal length; an edge of the tree is any number of blocks, and the
children of a node differ in their first block. So a prompt's way through the tree is a step for
each place where prompts parted, however long it is, and each step compares bytes at memory speed.
"""

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

# Bytes that are told apart at once: about 16 tokens, as many as engines keep or drop together.
BLOCK = 64
# Of a longer prompt only so much is looked at; by then conversations have parted.
LONGEST = 64 * 1024
# Holders of one beginning that are remembered: enough to draw from.
HOLDERS = 64
# What a node takes beside its text: the objects it is made of, and its places in two mappings.
NODE = 600

H = TypeVar("H")


class Node(Generic[H]):
    """One edge of the tree, and who has seen all from the root to its end."""

    __slots__ = ("children", "edge", "holders", "parent")

    def __init__(self, edge: bytes, holders: list[H], parent: "Node[H] | None") -> None:
        self.edge = edge
        self.holders = holders
        self.parent = parent
        self.children: dict[bytes, Node[H]] = {}


class Match(NamedTuple, Generic[H]):
    """How much of a prompt is in the tree: ``length`` bytes of it.

    ``steps`` are the nodes on the way, the shortest beginning first; the last one's edge may
    reach beyond the match. ``ends[n]`` is how many bytes of the prompt ``steps[n]`` accounts for.
    """

    length: int
    steps: list[Node[H]]
    ends: list[int]


class PrefixTree(Generic[H]):
    """Beginnings of prompts and their holders; takes about ``budget`` bytes at most.

    Whatever was noted longest ago is dropped first. A beginning is noted with every prompt that
    continues it, so it never goes before what hangs on it.
    """

    def __init__(self, budget: int) -> None:
        if budget < 2 * (LONGEST + NODE):
            raise ValueError("a tree needs room for two prompts")
        self._budget = budget
        self._root: Node[H] = Node(b"", [], None)
        self._recent: OrderedDict[Node[H], None] = OrderedDict()
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes taken now, by estimate."""
        return self._size

    def __len__(self) -> int:
        return len(self._recent)

    def match(self, prompt: bytes) -> Match[H]:
        """The longest beginning of a prompt, in whole blocks, that somebody has seen."""
        node = self._root
        steps: list[Node[H]] = []
        ends: list[int] = []
        at = 0
        most = _whole(prompt)
        while at < most:
            child = node.children.get(prompt[at : at + BLOCK])
            if child is None:
                break
            steps.append(child)
            end = at + len(child.edge)
            if end > most or not prompt.startswith(child.edge, at):
                at += _common(prompt, at, child.edge, most)
                ends.append(at)
                break
            ends.append(end)
            node, at = child, end
        return Match(at, steps, ends)

    def note(self, prompt: bytes, match: Match[H], holder: H) -> None:
        """Takes down that ``holder`` has seen a prompt. ``match`` is what ``match`` gave for it,
        with nothing noted in between."""
        at, steps, ends = match
        most = _whole(prompt)
        if steps:
            matched = at - (ends[-2] if len(ends) > 1 else 0)
            if matched < len(steps[-1].edge):
                steps[-1] = self._split(steps[-1], matched)
        for step in steps:
            self._hold(step, holder)
        if at < most:
            self._grow(steps, prompt[at:most], holder)
        recent = self._recent
        for step in reversed(steps):
            recent.move_to_end(step)
        while self._size > self._budget:
            self._drop(recent.popitem(last=False)[0])

    def _split(self, node: Node[H], length: int) -> Node[H]:
        """Cuts an edge in two; gives the new node at the end of the first part."""
        parent = node.parent or self._root
        upper = Node(node.edge[:length], node.holders.copy(), parent)
        parent.children[node.edge[:BLOCK]] = upper
        node.edge, node.parent = node.edge[length:], upper
        upper.children[node.edge[:BLOCK]] = node
        self._recent[upper] = None
        self._size += NODE
        return upper

    def _hold(self, node: Node[H], holder: H) -> None:
        holders = node.holders
        if holder not in holders:
            if len(holders) >= HOLDERS:
                del holders[0]
            holders.append(holder)

    def _grow(self, steps: list[Node[H]], rest: bytes, holder: H) -> None:
        """Hangs the rest of a prompt on the last step."""
        last = steps[-1] if steps else self._root
        self._size += len(rest)
        if not last.children and last.holders == [holder]:
            # A conversation that went on where it was: its edge just becomes longer.
            last.edge += rest
            return
        leaf = Node(rest, [holder], last)
        last.children[rest[:BLOCK]] = leaf
        self._recent[leaf] = None
        self._size += NODE
        steps.append(leaf)

    def _drop(self, leaf: Node[H]) -> None:
        """Removes the node that was noted longest ago: a leaf, as its children would be older."""
        parent = leaf.parent or self._root
        del parent.children[leaf.edge[:BLOCK]]
        self._size -= NODE + len(leaf.edge)


def _whole(prompt: bytes) -> int:
    """How many bytes of a prompt are looked at: whole blocks, and not too many."""
    length = min(len(prompt), LONGEST)
    return length - length % BLOCK


def _common(prompt: bytes, at: int, edge: bytes, most: int) -> int:
    """Bytes in whole blocks that an edge and the prompt from ``at`` on have in common; the first
    block is known to be. By halving, as comparing is fast and steps are slow."""
    low, high = 1, min(len(edge), most - at) // BLOCK
    while low < high:
        middle = (low + high + 1) // 2
        if prompt.startswith(edge[low * BLOCK : middle * BLOCK], at + low * BLOCK):
            low = middle
        else:
            high = middle - 1
    return low * BLOCK
