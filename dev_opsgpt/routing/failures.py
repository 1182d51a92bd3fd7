"""Models that did not load, and when they are tried again. Pure.

``now`` is in monotonic seconds.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

# A model that did not load is not tried again for so long, twice as long with each failure.
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
# What is refused since it can never fit is looked at again after so long.
REFUSED_FOR = 5.0


@dataclass
class Failure:
    """Why a model did not load, and until when nobody tries again."""

    message: str
    until: float
    pause: float = 0.0


class Failures:
    """The last failure of each model."""

    def __init__(self) -> None:
        self._found: dict[str, Failure] = {}

    def add(self, model: str, why: str, now: float) -> None:
        """A load has failed."""
        before = self._found.get(model)
        pause = FIRST_PAUSE
        if before is not None and before.pause:
            pause = min(before.pause * 2, LONGEST_PAUSE)
        self._found[model] = Failure(why, now + pause, pause)

    def refuse(self, model: str, why: str, now: float) -> None:
        """A model was not tried: there can be no room for it."""
        self._found[model] = Failure(why, now + REFUSED_FOR)

    def forgive(self, models: Iterable[str]) -> None:
        """These may be tried at once."""
        for model in models:
            self._found.pop(model, None)

    def forget(self, known: Collection[str], now: float) -> None:
        """Forgets models that nobody knows any more: one that is known again later has another
        configuration."""
        for model in [m for m, one in self._found.items() if m not in known and now >= one.until]:
            del self._found[model]

    def of(self, model: str, now: float) -> Failure | None:
        """Why a model is not tried now, if that is so."""
        found = self._found.get(model)
        return found if found is not None and now < found.until else None

    def last(self, model: str) -> Failure | None:
        """What went wrong when it was tried last, which it may be again by now."""
        return self._found.get(model)
