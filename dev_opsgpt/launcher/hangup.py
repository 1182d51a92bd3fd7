"""Which SIGHUP says that the terminal is gone, and which asks for a look at the configuration.

Both are one signal. A terminal that closes stops what was started in it; a service without one, or
under ``nohup``, only ever gets the other.
"""

import asyncio
import os
import time
from math import inf

INTERVAL = 1.0
# The signal comes at once, and finds us within that time.
RECENT = 2.5 * INTERVAL


def has_terminal() -> bool:
    """Whether this process has a terminal that it belongs to."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Hangup:
    """Tells the two apart. ``ignored``: SIGHUP was ignored when this process began."""

    def __init__(self, ignored: bool) -> None:
        self._ignored = ignored
        # When the terminal was there, for the last time that we know of.
        self._seen = -inf
        self._look()

    async def watch(self) -> None:
        """Keeps an eye on the terminal: one can go away without a signal to us. Returns when it
        has."""
        while True:
            if not self._look():
                return
            await asyncio.sleep(INTERVAL)

    def ends(self) -> bool:
        """Whether a SIGHUP that came just now means the end: the terminal was there a moment ago
        and is not now."""
        if self._look():
            return False
        lost = time.monotonic() - self._seen <= RECENT
        self._seen = -inf
        return lost and not self._ignored

    def _look(self) -> bool:
        there = has_terminal()
        if there:
            self._seen = time.monotonic()
        return there
