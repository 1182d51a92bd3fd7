"""How a step is computed, whichever way the model allows."""

from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Protocol

from dev_opsgpt.engines.hf.running import Running
from dev_opsgpt.engines.hf.scheduler import Work

if TYPE_CHECKING:
    import torch


class Runner(Protocol):
    """Computes works and keeps the state of sequences between steps."""

    states: bool
    """Whether each sequence has a state of its own, rather than blocks that several can share."""

    whole_prompts: bool
    """Whether a prompt has to be computed in one piece, without what others left."""

    one_at_a_time: bool
    """Whether sequences would get into each other's way."""

    def run(self, works: Items[Work]) -> "tuple[list[Work], torch.Tensor]":
        """The works after which a token is chosen, and the logits for each, works x vocabulary.
        Where it raises, the same works can be given again."""
        ...

    @property
    def bytes_per_token(self) -> int:
        """Memory that a token takes as long as it is kept; 0 if unknown."""
        ...

    def resize(self, blocks: int) -> None:
        """Room for that many blocks of tokens, none in use."""
        ...

    def clear(self, blocks: Items[int]) -> None:
        """Puts zeros where there may be values that are no numbers."""
        ...

    def leave(self) -> None:
        """Gives the model back as it was, and the memory."""
        ...

    def hand_on(self, old: Running, new: Running) -> None:
        """The new sequence goes on from the state of the old one, which is gone."""
        ...

    def forget(self, sequence: Running) -> None:
        """The sequence is gone, or begins anew."""
        ...
