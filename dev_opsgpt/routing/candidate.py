"""What a dispatch policy may know of the replicas it chooses from, and how a policy is called."""

from collections.abc import Sequence
from random import Random
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """A replica that could take a request.

    ``speed`` is a relative weight; ``running`` requests are in work, ``waiting`` ones queue,
    ``limit`` may run at once; ``queue_length`` is the sum that FastChat's policies look at.
    """

    @property
    def speed(self) -> float: ...  # noqa: D102 (told above)
    @property
    def queue_length(self) -> int: ...  # noqa: D102
    @property
    def running(self) -> int: ...  # noqa: D102
    @property
    def waiting(self) -> int: ...  # noqa: D102
    @property
    def limit(self) -> int: ...  # noqa: D102


C = TypeVar("C", bound=Candidate)


class Policy(Protocol):
    """Chooses one of the candidates, which stand in the order of their registration.

    ``turn`` counts the choices made for this model before this one; ``rng`` is the only source
    of chance. None when there is no candidate that may be chosen.
    """

    def __call__(self, candidates: Sequence[C], turn: int, rng: Random) -> C | None:
        """Gives the chosen candidate itself."""
        ...
