"""What is wrong with a configuration, said so that the reader knows where and how to mend it."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

KeyPath = tuple[str | int, ...]
"""Where a value stands: ("FSCHAT_MODEL_WORKERS", "tiny-chat", "port")."""


Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One fault or one doubtful thing in the configuration; never holds a secret.

    `source` is the file or environment variable, `key` the full key path as Python writes it,
    `message` what was found, `mend` what to do about it. An "error" stops a start, a "warning"
    does not.
    """

    severity: Severity
    source: str
    key: str
    message: str
    mend: str

    def __str__(self) -> str:
        """Give the problem as one line."""
        return f"{self.source}: {self.key}: {self.message}. {self.mend}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` holds every reason, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep the problems; the text of the error is one line for each."""
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def spell(path: Sequence[str | int]) -> str:
    """Write a key path the way Python indexes it: `FSCHAT_OPENAI_API["port"]`."""
    if not path:
        return "the whole file"
    head, *rest = path
    steps = (f'["{key}"]' if isinstance(key, str) else f"[{key}]" for key in rest)
    return f"{head}{''.join(steps)}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Give the known name most like `name`, blind to case, or None when none is alike enough."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(name.casefold(), list(by_folded), n=1, cutoff=cutoff)
    return by_folded[found[0]] if found else None
