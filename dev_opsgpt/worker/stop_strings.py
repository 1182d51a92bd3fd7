"""Stop strings: text is held back while it may turn out to be the beginning of one.

Independent of how the text is cut into pieces: the first stop string to be complete ends the
text (of two that end at the same place, the longer).
"""

import msgspec

from dev_opsgpt.worker.engine import Delta, TokenLogprob


class StopFilter:
    """Passes on the content of deltas up to a stop string. ``stopped`` tells that one was met.

    Log probabilities go out with the last piece of the text that they belong to; of a token that
    reaches into the stop string only the visible part is shown.
    """

    def __init__(self, stops: list[str]) -> None:
        self.stopped = False
        self._stops = stops
        self._held = ""
        self._text = ""
        self._logprobs: list[TokenLogprob] = []

    def feed(self, delta: Delta) -> Delta:
        """What may be shown of ``delta`` and of what was held back before it."""
        if not self._stops or not (delta.content or delta.logprobs):
            return delta
        self._held += delta.content
        self._text += delta.content
        self._logprobs += delta.logprobs
        matches = [(self._held.find(s) + len(s), -len(s)) for s in self._stops if s in self._held]
        if matches:
            end, length = min(matches)
            return self._cut(delta, end + length)
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        logprobs = self._released() if not self._held else []
        return msgspec.structs.replace(delta, content=shown, logprobs=logprobs)

    def flush(self) -> Delta:
        """What was still held back when the answer ended."""
        rest, self._held = self._held, ""
        return Delta(content=rest, logprobs=self._released())

    def _released(self) -> list[TokenLogprob]:
        found, self._logprobs, self._text = self._logprobs, [], ""
        return found

    def _cut(self, delta: Delta, start: int) -> Delta:
        hidden = len(self._held) - start
        room = len(self._text) - hidden
        shown = self._held[:start]
        self.stopped = True
        self._held = ""
        return msgspec.structs.replace(
            delta, content=shown, logprobs=_covering(self._released(), room)
        )


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that is a beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _covering(entries: list[TokenLogprob], room: int) -> list[TokenLogprob]:
    """The entries of the first ``room`` characters, the last one shortened where it reaches on."""
    found = []
    for entry in entries:
        if room <= 0:
            break
        if len(entry.token) > room:
            token = entry.token[:room]
            entry = TokenLogprob(token, entry.logprob, list(token.encode()), [])
        room -= len(entry.token)
        found.append(entry)
    return found
