"""Replicas for tests of the dispatch policies."""

from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Replica:
    """A ``Candidate`` that stays as it is."""

    address: str = ""
    speed: float = 1.0
    running: int = 0
    waiting: int = 0
    limit: int = 5
    first_token: float | None = None

    @property
    def queue_length(self) -> int:
        return self.running + self.waiting


SPEEDS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 10.0])
REPLICAS = st.lists(
    st.builds(
        Replica,
        address=st.integers(0, 99).map(lambda n: f"http://10.0.0.{n}:20002"),
        speed=SPEEDS,
        running=st.integers(0, 20),
        waiting=st.integers(0, 20),
        limit=st.integers(0, 10),
        first_token=st.none() | st.floats(0, 60),
    ),
    min_size=1,
    max_size=24,
    unique_by=lambda replica: replica.address,
)


def idle(count: int) -> list[Replica]:
    """Equal replicas without load."""
    return [Replica(f"http://10.0.{n >> 8}.{n & 255}:20002") for n in range(count)]
