from collections import Counter
from dataclasses import dataclass
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.routing.policies import DEFAULT_POLICY, POLICIES
from dev_opsgpt.routing.policies.least_load import least_load
from dev_opsgpt.routing.policies.lottery import lottery
from dev_opsgpt.routing.policies.round_robin import round_robin
from dev_opsgpt.routing.policies.shortest_queue import shortest_queue


@dataclass(frozen=True)
class Replica:
    name: str = ""
    speed: float = 1.0
    running: int = 0
    waiting: int = 0
    limit: int = 5

    @property
    def queue_length(self) -> int:
        return self.running + self.waiting


SPEEDS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 10.0])
REPLICAS = st.lists(
    st.builds(
        Replica,
        name=st.uuids().map(str),
        speed=SPEEDS,
        running=st.integers(0, 20),
        waiting=st.integers(0, 20),
        limit=st.integers(0, 10),
    ),
    max_size=8,
)
TURNS = st.integers(0, 10_000)


@pytest.mark.parametrize("name", POLICIES)
@given(replicas=REPLICAS, turn=TURNS, seed=st.integers())
def test_every_policy_chooses_one_of_the_candidates(
    name: str, replicas: list[Replica], turn: int, seed: int
) -> None:
    chosen = POLICIES[name](replicas, turn, Random(seed))
    if chosen is None:
        assert not replicas or (name == "lottery" and not any(r.speed for r in replicas))
    else:
        assert any(chosen is replica for replica in replicas)
    assert POLICIES[name](replicas, turn, Random(seed)) is chosen


def test_names() -> None:
    assert set(POLICIES) == {"least_load", "round_robin", "lottery", "shortest_queue"}
    assert POLICIES[DEFAULT_POLICY] is least_load
    with pytest.raises(TypeError):
        POLICIES["mine"] = lottery  # type: ignore[index]


def test_lottery_is_weighted_by_speed() -> None:
    replicas = [Replica("one", 1), Replica("none", 0), Replica("three", 3), Replica("four", 4)]
    rng = Random(7)
    draws = 40_000
    wins = Counter(lottery(replicas, 0, rng).name for _ in range(draws))
    assert wins["none"] == 0
    # Chi square with two degrees of freedom; 13.8 is exceeded by chance once in a thousand seeds.
    expected = {"one": draws / 8, "three": draws * 3 / 8, "four": draws / 2}
    assert sum((wins[name] - n) ** 2 / n for name, n in expected.items()) < 13.8


def test_lottery_needs_some_speed() -> None:
    assert lottery([Replica(speed=0), Replica(speed=5e-5)], 0, Random(1)) is None
    assert lottery([], 0, Random(1)) is None


def test_lottery_gives_a_ticket_on_the_edge_to_one_who_may_win() -> None:
    class Highest(Random):
        def random(self) -> float:
            return 1.0

    replicas = [Replica("a", 1), Replica("b", 0)]
    assert lottery(replicas, 0, Highest()).name == "a"


@pytest.mark.parametrize(
    ("queues_and_speeds", "chosen"),
    [
        ([(3, 1), (2, 1), (2, 1)], 1),  # the first of equals
        ([(3, 2), (2, 1)], 0),  # 1.5 < 2
        ([(4, 2), (2, 1)], 0),  # 2 = 2: the first
        ([(0, 0), (9, 1)], 1),  # no speed: last choice
        ([(0, 0), (9, 0)], 0),
    ],
)
def test_shortest_queue_by_hand(queues_and_speeds: list[tuple[int, int]], chosen: int) -> None:
    replicas = [Replica(str(i), s, q) for i, (q, s) in enumerate(queues_and_speeds)]
    assert shortest_queue(replicas, 5, Random(1)) is replicas[chosen]


@given(replicas=REPLICAS, turn=TURNS)
def test_shortest_queue_is_the_first_minimum(replicas: list[Replica], turn: int) -> None:
    lengths = [r.queue_length / r.speed if r.speed else inf for r in replicas]
    chosen = shortest_queue(replicas, turn, Random(0))
    if replicas:
        assert chosen is replicas[lengths.index(min(lengths))]


@given(count=st.integers(1, 9), rounds=st.integers(1, 5), start=TURNS)
def test_round_robin_is_fair(count: int, rounds: int, start: int) -> None:
    replicas = [Replica(str(i), running=i) for i in range(count)]
    turns = range(start, start + count * rounds)
    chosen = Counter(round_robin(replicas, turn, Random(0)).name for turn in turns)
    assert set(chosen.values()) == {rounds}


@pytest.mark.parametrize(
    ("replicas", "chosen"),
    [
        ([Replica(running=2), Replica(running=1)], 1),
        ([Replica(running=2, limit=8), Replica(running=1, limit=2)], 0),  # 1/4 < 1/2
        ([Replica(running=2, speed=4), Replica(running=1)], 0),  # 2/20 < 1/5
        ([Replica(running=5, waiting=1), Replica(running=5)], 1),
        ([Replica(speed=0), Replica(running=50)], 1),
        ([Replica(limit=0, running=2), Replica(limit=1, running=1)], 1),
    ],
)
def test_least_load_by_hand(replicas: list[Replica], chosen: int) -> None:
    assert least_load(replicas, 0, Random(1)) is replicas[chosen]


@given(count=st.integers(1, 9), start=TURNS)
def test_least_load_uses_an_idle_fleet_evenly(count: int, start: int) -> None:
    replicas = [Replica(str(i)) for i in range(count)]
    chosen = [least_load(replicas, turn, Random(0)).name for turn in range(start, start + count)]
    assert len(set(chosen)) == count


@given(replicas=REPLICAS, turn=TURNS)
def test_least_load_never_chooses_one_that_is_fuller(replicas: list[Replica], turn: int) -> None:
    chosen = least_load(replicas, turn, Random(0))
    for other in replicas:
        if other.speed == chosen.speed > 0 and other.limit == chosen.limit:
            assert chosen.queue_length <= other.queue_length
