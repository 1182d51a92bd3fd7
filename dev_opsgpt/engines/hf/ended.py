"""Sequences that have ended and whose state another one may go on from: pure bookkeeping.

A state stands for exactly the tokens that it has seen. It cannot be cut back to a beginning that
two prompts share, and to copy it wherever they might part would cost more than it saves. So it is
handed on whole, to one prompt that begins with all of these tokens: the next turn of a
conversation, or the same prompt again after its client hung up.
"""

from collections.abc import Sequence as Items

from dev_opsgpt.engines.hf.blocks import BLOCK
from dev_opsgpt.engines.hf.running import Running


class Ended:
    """Those that have ended, in the order of their ends. They hold their tables."""

    def __init__(self) -> None:
        self._kept: list[Running] = []

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def blocks(self) -> int:
        """How many blocks they hold."""
        return sum(len(one.table.blocks) for one in self._kept)

    def add(self, sequence: Running) -> bool:
        """Keeps a sequence; False where it has seen too little to be worth it."""
        if sequence.computed < BLOCK:
            return False
        self._kept.append(sequence)
        return True

    def take(self, tokens: Items[int]) -> Running | None:
        """The one that has seen the most of the beginning of ``tokens``, and nothing else. At least
        one token is left over: the model has to see one to say what comes next."""
        fitting = [
            one
            for one in self._kept
            if one.computed < len(tokens) and one.tokens[: one.computed] == tokens[: one.computed]
        ]
        found = max(fitting, key=lambda one: one.computed, default=None)
        if found is not None:
            self._kept.remove(found)
        return found

    def oldest(self) -> Running:
        """The one that ended first, kept no longer."""
        return self._kept.pop(0)
