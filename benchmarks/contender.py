"""What is measured: anything that stands between a client and an upstream.

A further router is one small file in ``contenders/`` with a class of this shape, and its name in
``contenders/__init__.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

MODEL = "mock"
"""The model that requests ask for, and that the upstream lists."""


class Contender(Protocol):
    """One router with its processes."""

    name: str
    """What the tables call it."""
    url: str
    """The base of its routes, such as ``http://127.0.0.1:8888/v1``; set by ``start``."""
    headers: Mapping[str, str]
    """What its callers have to send, such as a key."""

    def start(self, upstream: str, folder: Path) -> None:
        """Returns when requests are answered.

        ``upstream`` is the base URL of an OpenAI server that serves ``MODEL`` (``/models``,
        ``/chat/completions``); configuration and logs go into ``folder``. Raises ``StartFailed``.
        """
        ...

    def pids(self) -> Sequence[int]:
        """The processes whose CPU time, with their descendants', is the router's cost."""
        ...

    def stop(self) -> None:
        """Ends what ``start`` began; also after a ``start`` that failed."""
        ...


Factory = Callable[[], Contender]
