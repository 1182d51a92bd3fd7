"""The dispatch policies at work: one of its own for each model, with what it has to remember."""

from collections.abc import Callable, Sequence
from random import Random

from dev_opsgpt.routing.candidate import NOTHING, Asked, C, Candidate, Policy
from dev_opsgpt.routing.policies import POLICIES


class _Model:
    """A model's policy, and the replicas that it was last seen to have."""

    __slots__ = ("name", "policy", "replicas")

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.replicas: Sequence[Candidate] = ()


class Dispatcher:
    """Chooses replicas, for each model by the policy that ``policy_of`` names for it.

    Models never disturb each other: each has its own turns and memory. Only models that somebody
    serves are remembered, so names that clients invent cost nothing.
    """

    def __init__(self, policy_of: Callable[[str], str], rng: Random) -> None:
        self._policy_of = policy_of
        self._rng = rng
        self._models: dict[str, _Model] = {}

    def choose(
        self, model: str, candidates: Sequence[C], asked: Asked = NOTHING, now: float = 0.0
    ) -> C | None:
        """One of the candidates, or None when none may be chosen.

        They stand in the order of their registration; those that are down or were tried already
        are left out. ``asked`` holds what ``reads`` said the policy looks at, ``now`` is in
        monotonic seconds. Raises ``ValueError`` when there is no policy of the model's name.
        """
        if not candidates:
            return None
        known = self._models.get(model) or self._begin(model)
        # Fewer than before are no news: some may be left out of these. Those gone are told of.
        if len(candidates) >= len(known.replicas):
            known.replicas = candidates
        if len(candidates) == 1 and not known.policy.asked_alone:
            return candidates[0]
        return known.policy.choose(candidates, asked, now)

    def reads(self, model: str) -> frozenset[str]:
        """The fields of ``Asked`` that the model's policy looks at; the others can stay empty.
        Raises ``ValueError`` as ``choose`` does."""
        return _policy(self._policy_of(model)).reads

    def gone(self, address: str) -> None:
        """Forgets a replica that has left for good, and the models that have no other."""
        for model, known in list(self._models.items()):
            known.policy.gone(address)
            known.replicas = [r for r in known.replicas if r.address != address]
            if not known.replicas:
                del self._models[model]

    def reconfigured(self) -> None:
        """Begins anew with the models whose policy is another one now."""
        for model, known in list(self._models.items()):
            if self._policy_of(model) != known.name:
                del self._models[model]

    def _begin(self, model: str) -> _Model:
        name = self._policy_of(model)
        found = self._models[model] = _Model(name, _policy(name)(self._rng))
        return found


def dispatcher(name: str, rng: Random) -> Dispatcher:
    """A dispatcher with the same policy for all models. Raises ``ValueError`` that lists the
    names."""
    _policy(name)
    return Dispatcher(lambda model: name, rng)


def _policy(name: str) -> type[Policy]:
    if name not in POLICIES:
        raise ValueError(f"no dispatch policy {name!r}; there are {', '.join(POLICIES)}")
    return POLICIES[name]
