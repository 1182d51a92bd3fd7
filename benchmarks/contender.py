"""What is measured: anything that stands between a client and an upstream.

A further router is one small file in ``contenders/`` with a class of this shape, and its name in
``contenders/__init__.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

MODEL = "mock"
"""The model that requests ask for, and that the upstream lists."""

Kind = Literal["plain", "burst", "paced", "slow"]


class Target(msgspec.Struct, frozen=True):
    """The server behind a contender: the base ``url`` of an OpenAI server that serves ``MODEL``
    (``/models``, ``/chat/completions``; ``/health`` beside the base), and the ``kind`` of its
    answers, for a contender that speaks another dialect and has to bring its own such server."""

    url: str
    kind: Kind


class Contender(Protocol):
    """One router with its processes."""

    name: str
    """What the tables call it."""
    url: str
    """The base of its routes, such as ``http://127.0.0.1:8888/v1``; set by ``start``."""
    headers: Mapping[str, str]
    """What its callers have to send, such as a key."""
    rewrites: bool
    """Whether it writes answers anew: then their content is checked, else every byte."""
    heavy: bool
    """Whether a request takes it tens of milliseconds of CPU. Then every answer is read to its
    end, for what is unfinished when the time is over would be a large part of the whole."""

    def version(self) -> str:
        """What is measured, such as "1.22.1"."""
        ...

    def start(self, upstream: Target, folder: Path) -> None:
        """Returns when requests are answered; configuration and logs go into ``folder``.
        Raises ``StartFailed``."""
        ...

    def pids(self) -> Sequence[int]:
        """The processes whose CPU time, with their descendants', is the router's cost."""
        ...

    def stop(self) -> None:
        """Ends what ``start`` began; also after a ``start`` that failed."""
        ...


Factory = Callable[[], Contender]
