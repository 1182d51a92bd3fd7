"""What a generated text means: the readers between an engine's deltas and the client's."""

import json
from collections.abc import Iterator
from typing import Protocol

from dev_opsgpt.protocol.errors import InternalError
from dev_opsgpt.worker.engine import Delta


class TextReader(Protocol):
    """Takes the deltas of one sequence as they were generated and gives them as they are meant."""

    @property
    def done(self) -> bool:
        """Whether nothing that may still come is wanted."""
        ...

    @property
    def reasoning(self) -> bool:
        """Whether what comes next belongs to the reasoning."""
        ...

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """What ``delta`` makes certain."""
        ...

    def end(self) -> Iterator[Delta]:
        """What was held back when the text ended."""
        ...

    def finish(self, reason: str) -> str:
        """The finish reason to tell, given the one of the text. Raises ``InternalError`` where
        the text is not what the grammar should have made it."""
        ...


class PlainReader:
    """The text is the answer."""

    done = False
    reasoning = False

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """The delta itself."""
        yield delta

    def end(self) -> Iterator[Delta]:
        """Nothing is held back."""
        yield from ()

    def finish(self, reason: str) -> str:
        """The reason itself."""
        return reason


class JsonReader(PlainReader):
    """The text is the answer, and it is JSON unless it was cut off."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def feed(self, delta: Delta) -> Iterator[Delta]:
        """The delta itself."""
        self._pieces.append(delta.content)
        yield delta

    def finish(self, reason: str) -> str:
        """The reason itself."""
        if reason == "stop":
            try:
                json.loads("".join(self._pieces))
            except (ValueError, RecursionError):
                raise InternalError("The model's answer left the asked-for format.") from None
        return reason
