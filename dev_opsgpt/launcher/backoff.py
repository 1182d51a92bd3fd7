"""How long to wait before a process that died is started again."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
HEALTHY_AFTER = 60.0


class Backoff:
    """Pauses of 1, 2, 4 ... 30 seconds, from 1 again after a minute of health. Pure."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    def pause(self, healthy: float) -> float:
        """The seconds to wait now, after a life with ``healthy`` seconds of readiness."""
        if healthy >= HEALTHY_AFTER:
            self._next = FIRST_PAUSE
        pause = self._next
        self._next = min(pause * 2, LONGEST_PAUSE)
        return pause
