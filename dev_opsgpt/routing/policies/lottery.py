"""FastChat's ``lottery``: by chance, weighted by speed."""

from collections.abc import Sequence

from dev_opsgpt.routing.candidate import Asked, C, Policy

# FastChat's threshold: a fleet whose speeds sum to less than this has no one to choose.
_NOTHING = 1e-4


class Lottery(Policy):
    """A candidate with the probability speed / sum of speeds; None when that sum is about 0."""

    asked_alone = True

    def choose(self, candidates: Sequence[C], asked: Asked, now: float) -> C | None:
        """Looks at every candidate's speed."""
        total = 0.0
        for candidate in candidates:
            total += candidate.speed
        if total < _NOTHING:
            return None
        ticket = self._rng.random() * total
        for candidate in candidates:
            ticket -= candidate.speed
            if ticket < 0:
                return candidate
        # Rounding can lift the ticket to the very sum: the last one that may win has it.
        return next(candidate for candidate in reversed(candidates) if candidate.speed > 0)
