"""``round_robin``: one after the other, whatever their load."""

from collections.abc import Sequence
from random import Random

from dev_opsgpt.routing.candidate import C


def round_robin(candidates: Sequence[C], turn: int, rng: Random) -> C | None:
    """The candidate whose turn it is."""
    return candidates[turn % len(candidates)] if candidates else None
