"""How far a load has come: told by the engine, passed on now and then."""

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

Tell = Callable[[str, float | None], None]
"""Takes what an engine is at while it starts, in a word or two, and how much of that is done,
between 0 and 1, None where it cannot be told. May be called from any thread, as often as one
likes."""

# Seconds between two that are passed on, while the engine is at the same thing ...
PAUSE = 0.25
# ... and has not come further than this: one that tells little may say nothing more for long.
STEP = 0.05


@runtime_checkable
class Progressing(Protocol):
    """An engine that tells how its start goes on. ``progress`` is set before ``start``."""

    progress: Tell


def silent(doing: str, fraction: float | None = None) -> None:
    """Tells nobody."""


class Thinned:
    """A ``Tell`` that passes on what matters: another thing, or the same further on or a while
    later."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._doing = ""
        self._fraction = 0.0
        self._next = 0.0

    def __call__(self, doing: str, fraction: float | None = None) -> None:
        """Takes one piece of news."""
        now = self._clock()
        near = abs((fraction or 0.0) - self._fraction) < STEP
        if doing == self._doing and near and now < self._next:
            return
        self._doing, self._fraction, self._next = doing, fraction or 0.0, now + PAUSE
        self._tell(doing, fraction)
