"""What came of each changed configuration, and the file in which other commands read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

FILE = "reloads.json"
KEPT = 20
"""Outcomes that are kept."""


class Line(msgspec.Struct, frozen=True):
    """One thing that came of a changed configuration, for a person."""

    text: str
    ok: bool = True


class Outcome(msgspec.Struct, frozen=True):
    """What came of one look at the configuration. ``asked`` counts the requests for a look that
    had come when it began; ``refused``: nothing was changed, for what ``lines`` say. ``at`` is when
    it was over, in seconds since the epoch."""

    number: int
    asked: int
    at: float
    state: Literal["nothing", "applied", "refused"]
    lines: tuple[Line, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all went well."""
        return self.state != "refused" and all(line.ok for line in self.lines)


@dataclass(frozen=True)
class Journal:
    """The latest outcomes, in one file of a folder that is there."""

    folder: Path

    def read(self) -> tuple[Outcome, ...]:
        """The outcomes, oldest first. Raises ``OSError`` where nobody keeps a journal."""
        return msgspec.json.decode(self._path.read_bytes(), type=tuple[Outcome, ...])

    def write(self, outcomes: tuple[Outcome, ...]) -> None:
        """Puts these in the place of what was there."""
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(outcomes))
        new.replace(self._path)

    @property
    def _path(self) -> Path:
        return self.folder / FILE
