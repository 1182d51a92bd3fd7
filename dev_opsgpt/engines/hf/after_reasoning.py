"""A constraint that begins when the reasoning is over, if there is any."""

from typing import TYPE_CHECKING

from dev_opsgpt.engines.hf.sequence import Constraint
from dev_opsgpt.engines.hf.token_text import TokenTable
from dev_opsgpt.protocol.errors import InternalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class AfterReasoning:
    """Leaves the model alone while it reasons, and while it may be about to: see ``Constraint``.

    ``think`` are the tags around the reasoning, and ``thinking`` says that the prompt has opened
    it. Where what came before the constraint does not fit it, it never begins.
    """

    def __init__(
        self, inner: Constraint, table: TokenTable, think: tuple[str, str], *, thinking: bool
    ) -> None:
        self._inner: Constraint | None = inner
        self._table = table
        self._start, self._end = (tag.encode() for tag in think)
        self._thinking = thinking
        self._waits = True
        self._tokens: list[int] = []
        self._text = b""

    def mask(self) -> "NDArray[np.int32] | None":
        """The tokens allowed next; all, in the reasoning."""
        return None if self._waits or self._inner is None else self._inner.mask()

    def accept(self, token: int) -> None:
        """Goes on by a token that was chosen."""
        if self._waits:
            self._wait(token)
        elif self._inner is not None:
            self._inner.accept(token)

    @property
    def done(self) -> bool:
        """Whether nothing may follow."""
        return not self._waits and self._inner is not None and self._inner.done

    def _wait(self, token: int) -> None:
        self._text += self._table.bytes_of(token)
        if self._thinking:
            self._waits = self._end not in self._text
            self._text = self._text[-len(self._end) :]
            return
        self._tokens.append(token)
        begun = self._text.lstrip()
        if begun.startswith(self._start):
            self._thinking, self._text = True, begun.removeprefix(self._start)
            self._waits = self._end not in self._text
        elif not self._start.startswith(begun):
            self._begin()

    def _begin(self) -> None:
        """The text had only looked like reasoning."""
        self._waits = False
        try:
            for token in self._tokens:
                if self._inner is not None:
                    self._inner.accept(token)
        except InternalError:
            self._inner = None
