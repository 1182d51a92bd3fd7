"""How far a load is, for the log: now and then a line."""

import logging
import time
from collections.abc import Callable
from threading import Lock

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
"""Called with what is done, for a person, and how much of it is over, 0 to 1. From any thread."""

EVERY = 5.0
"""Seconds between two lines about the same thing."""


def logged(model: str, clock: Callable[[], float] = time.monotonic) -> Progress:
    """A progress that writes to the log: when something has taken a while, and then every few
    seconds. A load that is over in a moment says nothing."""
    lock = Lock()
    since: dict[str, float] = {}

    def tell(text: str, done: float) -> None:
        with lock:
            now = clock()
            if now - since.setdefault(text, now) < EVERY:
                return
            since[text] = now
        log.info("%s: %s, %d %%", model, text, round(100 * done))

    return tell
