"""How far a load has come: told by the engine, passed on now and then."""

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

Tell = Callable[[str, float | None], None]
"""Takes what an engine is at while it starts, in a word or two, and how much of that is done,
between 0 and 1, None where it cannot be told. May be called from any thread, as often as one
likes."""

# Seconds between two that are passed on, while the engine is at the same thing.
PAUSE = 0.25


@runtime_checkable
class Progressing(Protocol):
    """An engine that tells how its start goes on. ``progress`` is set before ``start``."""

    progress: Tell


def silent(doing: str, fraction: float | None = None) -> None:
    """Tells nobody."""


class Thinned:
    """A ``Tell`` that passes on what matters: another thing, or the same a while later."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._doing = ""
        self._next = 0.0

    def __call__(self, doing: str, fraction: float | None = None) -> None:
        """Takes one piece of news."""
        now = self._clock()
        if doing == self._doing and now < self._next:
            return
        self._doing, self._next = doing, now + PAUSE
        self._tell(doing, fraction)
