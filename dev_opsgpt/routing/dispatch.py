"""A dispatch policy together with the little it has to remember."""

from collections.abc import Sequence
from random import Random

from dev_opsgpt.routing.candidate import C, Policy
from dev_opsgpt.routing.policies import POLICIES


class Dispatcher:
    """Chooses replicas by one policy, counting the turns of each model apart, so that requests
    for one model never disturb the round of another."""

    def __init__(self, policy: Policy, rng: Random) -> None:
        self._policy = policy
        self._rng = rng
        self._turns: dict[str, int] = {}

    def choose(self, model: str, candidates: Sequence[C]) -> C | None:
        """One of the candidates, or None when none may be chosen.

        Only models that somebody serves are remembered, so a client's names cost no memory.
        """
        if not candidates:
            return None
        turn = self._turns.get(model, 0)
        self._turns[model] = turn + 1
        return self._policy(candidates, turn, self._rng)


def dispatcher(name: str, rng: Random) -> Dispatcher:
    """The dispatcher of a policy by its name. Raises ``ValueError`` that lists the names."""
    if name not in POLICIES:
        raise ValueError(f"no dispatch policy {name!r}; there are {', '.join(POLICIES)}")
    return Dispatcher(POLICIES[name], rng)
