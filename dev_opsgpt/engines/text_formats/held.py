"""Generated text that is not yet decided on, with the log probabilities that belong to it."""

from collections import deque

from dev_opsgpt.worker.engine import Delta, TokenLogprob


class Held:
    """Text that comes in at the end and is taken or dropped at the front.

    A log probability goes with the piece that holds the last character of its token, as
    ``TokenLogprob.token`` has it.
    """

    def __init__(self) -> None:
        self.text = ""
        self._entries: deque[TokenLogprob] = deque()
        self._ahead = 0  # characters of the first entry that are taken already

    def add(self, delta: Delta) -> None:
        """Holds the content of a step."""
        self.text += delta.content
        self._entries.extend(delta.logprobs)

    def take(self, count: int) -> Delta:
        """The first ``count`` characters."""
        shown, self.text = self.text[:count], self.text[count:]
        room = len(shown) + self._ahead
        found: list[TokenLogprob] = []
        while self._entries and 0 < room >= len(self._entries[0].token):
            entry = self._entries.popleft()
            room -= len(entry.token)
            found.append(entry)
        if not self.text:
            found += self._entries
            self._entries.clear()
            room = 0
        self._ahead = room
        return Delta(content=shown, logprobs=found)

    def drop(self, count: int) -> Delta:
        """Forgets the first ``count`` characters. A token of which something was taken, and the
        rest of which is dropped, has an entry for its visible part in what is returned."""
        owed = []
        if count and self._ahead and self._entries:
            entry, shown = self._entries[0], self._entries[0].token[: self._ahead]
            owed = [TokenLogprob(shown, entry.logprob, list(shown.encode()))]
        self.take(count)
        if self._ahead and self._entries:
            entry = self._entries.popleft()
            rest = entry.token[self._ahead :]
            self._entries.appendleft(TokenLogprob(rest, entry.logprob, list(rest.encode())))
            self._ahead = 0
        return Delta(logprobs=owed)
