"""Fewer and larger pieces of a stream, where a model is fast.

A token costs a small model a fraction of a millisecond, and as much again to carry through worker
and gateway one by one. Nobody sees the difference between a token a millisecond and sixteen of them
every sixteen; a slower model's tokens are never held back.
"""

import time
from collections.abc import Callable, Iterable

from dev_opsgpt.worker.engine import Delta


class Pace:
    """Says how long to wait before the next piece is read. ``seconds`` is the time between two
    pieces of a model that needs less than half of it for a token; ``clock`` gives seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last = clock() - seconds

    def wait(self) -> float:
        """To be asked after each piece: the seconds to wait, 0 after a piece that did not come
        shortly after the one before it."""
        now = self._clock()
        passed, self._last = now - self._last, now
        if passed >= self._seconds / 2:
            return 0.0
        # The next piece is counted from when it is read.
        rest = self._seconds - max(0.0, passed)
        self._last += rest
        return rest


def joined(deltas: Iterable[Delta]) -> list[Delta]:
    """The deltas, those of nothing but text (and its log probabilities) that follow each other
    made into one."""
    found: list[Delta] = []
    texts: list[str] = []
    for delta in deltas:
        if not _is_text(delta):
            _close(found, texts)
            found.append(delta)
        elif texts:
            texts.append(delta.content)
            found[-1].logprobs += delta.logprobs
        else:
            texts = [delta.content]
            found.append(delta)
    _close(found, texts)
    return found


def _is_text(delta: Delta) -> bool:
    return not (delta.reasoning or delta.tool_calls or delta.finish_reason or delta.usage)


def _close(found: list[Delta], texts: list[str]) -> None:
    if len(texts) > 1:
        found[-1].content = "".join(texts)
    texts.clear()
