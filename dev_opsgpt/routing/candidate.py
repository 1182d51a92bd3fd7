"""What a dispatch policy may know of a request and of the replicas it chooses from, and how a
policy is called."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import ClassVar, Protocol, TypeVar

import msgspec


class Asked(msgspec.Struct, frozen=True):
    """What of a request some policies look at: ``session``, the key that the requests of one
    conversation have in common (None: there is none), and ``prompt``, the JSON of its messages or
    its prompt as it came (empty where no policy reads it)."""

    session: str | None = None
    prompt: bytes = b""


NOTHING = Asked()


class Candidate(Protocol):
    """A replica that could take a request.

    ``address`` tells replicas apart, and stays. ``speed`` is a relative weight; ``running``
    requests are in work, ``waiting`` ones queue, ``limit`` may run at once; ``queue_length`` is
    the sum that FastChat's policies look at. One may also have ``first_token``: how many seconds
    it took of late until the first byte of an answer, None while nobody knows.
    """

    @property
    def address(self) -> str: ...  # noqa: D102 (told above)
    @property
    def speed(self) -> float: ...  # noqa: D102
    @property
    def queue_length(self) -> int: ...  # noqa: D102
    @property
    def running(self) -> int: ...  # noqa: D102
    @property
    def waiting(self) -> int: ...  # noqa: D102
    @property
    def limit(self) -> int: ...  # noqa: D102


C = TypeVar("C", bound=Candidate)


class Policy(ABC):
    """Chooses the replicas of one model, and holds whatever it remembers from one request to the
    next. ``rng`` is its only source of chance; time is told to it.

    ``reads`` names the fields of ``Asked`` that it looks at, ``asked_alone`` says whether it must
    be asked even where there is only one candidate.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    asked_alone: ClassVar[bool] = False

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    @abstractmethod
    def choose(self, candidates: Sequence[C], asked: Asked, now: float) -> C | None:
        """Gives the chosen candidate itself; None when none of them may be chosen.

        There is at least one candidate, and they stand in the order of their registration, those
        left out that are down or were tried already. ``now`` is in monotonic seconds. The very
        same ``asked`` twice in a row is one request, which the first choice did not take.
        """

    def gone(self, address: str) -> None:  # noqa: B027 (most policies remember no replica)
        """Forgets a replica that has left for good: one that comes back there is a new one."""
