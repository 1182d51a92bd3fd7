"""What holds for every policy, and the plain ones by hand."""

from collections import Counter
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.config.check import DISPATCH_METHODS
from dev_opsgpt.routing.candidate import NOTHING, Asked
from dev_opsgpt.routing.load import SAMPLE, load, nth_least, sample
from dev_opsgpt.routing.policies import DEFAULT_POLICY, POLICIES
from dev_opsgpt.routing.policies.least_latency import FADING, PATIENCE, LeastLatency
from dev_opsgpt.routing.policies.least_load import LeastLoad
from dev_opsgpt.routing.policies.lottery import Lottery
from dev_opsgpt.routing.policies.power_of_two import PowerOfTwo
from dev_opsgpt.routing.policies.prefix_cache import PrefixCache
from dev_opsgpt.routing.policies.round_robin import RoundRobin
from dev_opsgpt.routing.policies.shortest_queue import ShortestQueue
from dev_opsgpt.routing.table import Worker
from tests.routing.replicas import REPLICAS, Replica, idle

ASKED = st.builds(Asked, st.none() | st.text(max_size=9), st.binary(max_size=300))


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=50)
@given(replicas=REPLICAS, asked=st.lists(ASKED, min_size=1, max_size=9), data=st.data())
def test_every_policy_chooses_one_of_the_candidates(
    name: str, replicas: list[Replica], asked: list[Asked], data: st.DataObject
) -> None:
    seed = data.draw(st.integers())
    one, other = POLICIES[name](Random(seed)), POLICIES[name](Random(seed))
    for number, request in enumerate(asked):
        left = data.draw(st.lists(st.sampled_from(replicas), min_size=1, unique=True))
        if data.draw(st.booleans()):
            for policy in (one, other):
                policy.gone(replicas[0].address)
        chosen = one.choose(left, request, number * 0.7)
        if chosen is None:
            assert name == "lottery"
            assert not any(replica.speed for replica in left)
        else:
            assert any(chosen is replica for replica in left)
        # Nothing but the seed and what it was told decides.
        assert other.choose(left, request, number * 0.7) is chosen


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_takes_rows_of_the_table(name: str) -> None:
    rows = [Worker(address=f"http://{n}", models=("m",), kind="opsgpt") for n in range(3)]
    policy = POLICIES[name](Random(1))
    for number in range(5):
        assert policy.choose(rows, NOTHING, float(number)) in rows


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"shortest_queue", "least_latency"}))
def test_an_idle_fleet_is_used_by_all(name: str) -> None:
    policy, replicas = POLICIES[name](Random(1)), idle(6)
    chosen = Counter(
        policy.choose(replicas, Asked(f"s{n}", b"%d" % n * 999), 0.0).address for n in range(300)
    )
    assert set(chosen) == {replica.address for replica in replicas}


def test_names() -> None:
    assert tuple(POLICIES) == DISPATCH_METHODS
    assert POLICIES[DEFAULT_POLICY] is PrefixCache
    with pytest.raises(TypeError):
        POLICIES["mine"] = Lottery  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "reads"), [("session_affinity", {"session"}), ("prefix_cache", {"prompt"})]
)
def test_only_two_look_at_the_request(name: str, reads: set[str]) -> None:
    assert POLICIES[name].reads == reads
    assert sum(bool(policy.reads) for policy in POLICIES.values()) == 2


def test_lottery_is_weighted_by_speed() -> None:
    speeds = {"one": 1, "none": 0, "three": 3, "four": 4}
    replicas = [Replica(name, speed) for name, speed in speeds.items()]
    policy = Lottery(Random(7))
    draws = 40_000
    wins = Counter(policy.choose(replicas, NOTHING, 0.0).address for _ in range(draws))
    assert wins["none"] == 0
    # Chi square with two degrees of freedom; 13.8 is exceeded by chance once in a thousand seeds.
    expected = {"one": draws / 8, "three": draws * 3 / 8, "four": draws / 2}
    assert sum((wins[name] - n) ** 2 / n for name, n in expected.items()) < 13.8


def test_lottery_needs_some_speed() -> None:
    policy = Lottery(Random(1))
    assert policy.choose([Replica(speed=0), Replica(speed=5e-5)], NOTHING, 0.0) is None


def test_lottery_gives_a_ticket_on_the_edge_to_one_who_may_win() -> None:
    class Highest(Random):
        def random(self) -> float:
            return 1.0

    replicas = [Replica("a", 1), Replica("b", 0)]
    assert Lottery(Highest()).choose(replicas, NOTHING, 0.0) is replicas[0]


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
    assert ShortestQueue(Random(1)).choose(replicas, NOTHING, 0.0) is replicas[chosen]


@given(replicas=REPLICAS)
def test_shortest_queue_is_the_first_minimum(replicas: list[Replica]) -> None:
    lengths = [r.queue_length / r.speed if r.speed else inf for r in replicas]
    chosen = ShortestQueue(Random(0)).choose(replicas, NOTHING, 0.0)
    assert chosen is replicas[lengths.index(min(lengths))]


@given(count=st.integers(1, 9), rounds=st.integers(1, 5), start=st.integers(0, 20))
def test_round_robin_is_fair(count: int, rounds: int, start: int) -> None:
    replicas = [Replica(str(i), running=i) for i in range(count)]
    policy = RoundRobin(Random(0))
    chosen = [policy.choose(replicas, NOTHING, 0.0).address for _ in range(start + count * rounds)]
    assert set(Counter(chosen[start:]).values()) == {rounds}


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
def test_the_less_loaded_by_hand(replicas: list[Replica], chosen: int) -> None:
    for policy in (LeastLoad, PowerOfTwo):
        assert policy(Random(1)).choose(replicas, NOTHING, 0.0) is replicas[chosen]


@given(count=st.integers(1, 9), start=st.integers(0, 20))
def test_least_load_uses_an_idle_fleet_evenly(count: int, start: int) -> None:
    replicas, policy = idle(count), LeastLoad(Random(0))
    chosen = [policy.choose(replicas, NOTHING, 0.0).address for _ in range(start + count)]
    assert len(set(chosen[start:])) == count


@given(replicas=REPLICAS)
def test_least_load_is_the_least(replicas: list[Replica]) -> None:
    chosen = LeastLoad(Random(0)).choose(replicas, NOTHING, 0.0)
    assert load(chosen) == min(map(load, replicas))


@given(replicas=REPLICAS, seed=st.integers())
def test_power_of_two_is_never_the_only_fullest(replicas: list[Replica], seed: int) -> None:
    chosen = PowerOfTwo(Random(seed)).choose(replicas, NOTHING, 0.0)
    if len(replicas) > 1:
        assert any(load(chosen) <= load(other) for other in replicas if other is not chosen)


def test_power_of_two_draws_each_pair_alike() -> None:
    policy, replicas = PowerOfTwo(Random(3)), [Replica(str(n), running=n) for n in range(4)]
    wins = Counter(policy.choose(replicas, NOTHING, 0.0).address for _ in range(12_000))
    # Of the six pairs three have the idlest in them, two the next, one the next but one.
    assert "3" not in wins
    expected = {"0": 6000, "1": 4000, "2": 2000}
    assert sum((wins[name] - n) ** 2 / n for name, n in expected.items()) < 13.8


def test_the_quickest_is_chosen_until_its_load_makes_up_for_it() -> None:
    policy = LeastLatency(Random(1))
    slow = Replica("slow", first_token=0.9)
    for running, chosen in [(0, "quick"), (2, "quick"), (9, "slow")]:
        quick = Replica("quick", running=running, first_token=0.1)
        assert policy.choose([slow, quick], NOTHING, 0.0).address == chosen


def test_an_unknown_one_is_tried_by_one_request_at_a_time() -> None:
    policy = LeastLatency(Random(1))
    known, new = Replica("known", first_token=0.1, running=3), Replica("new")
    at_work = Replica("new", running=1)
    assert policy.choose([known, new], NOTHING, 10.0) is new
    assert policy.choose([known, at_work], NOTHING, 10.1) is known
    assert policy.choose([known, new], NOTHING, 10.2) is known
    assert policy.choose([known, new], NOTHING, 10.3 + PATIENCE) is new


def test_while_nothing_is_known_the_load_decides() -> None:
    replicas = [Replica("a", running=3), Replica("b", running=1), Replica("c", running=2)]
    assert LeastLatency(Random(1)).choose(replicas, NOTHING, 0.0) is replicas[1]


def test_one_that_was_slow_once_is_tried_again_the_later_the_slower_it_was() -> None:
    for times in (3, 9):
        policy = LeastLatency(Random(1))
        quick, slow = Replica("quick", first_token=0.1), Replica("slow", first_token=0.1 * times)
        policy.choose([slow], NOTHING, 0.0)
        chosen = [policy.choose([quick, slow], NOTHING, t / 2).address for t in range(400)]
        # The quick one was last chosen half a second ago, so it has faded by a tenth itself.
        assert FADING * (times - 1) <= chosen.index("slow") / 2 <= FADING * (1.1 * times - 1) + 1


def test_one_that_left_is_forgotten() -> None:
    policy = LeastLatency(Random(1))
    policy.choose([Replica("a")], NOTHING, 0.0)
    policy.gone("a")
    assert policy.choose([Replica("b", first_token=1.0), Replica("a")], NOTHING, 0.1).address == "a"


@given(count=st.integers(1, 100), seed=st.integers())
def test_a_sample(count: int, seed: int) -> None:
    replicas = idle(count)
    found = sample(replicas, Random(seed))
    assert len(found) == min(count, SAMPLE)
    assert len({replica.address for replica in found}) == len(found)


@given(values=st.lists(st.integers(0, 3), min_size=1), turn=st.integers(0, 99))
def test_the_least_take_turns(values: list[int], turn: int) -> None:
    places = [place for place, value in enumerate(values) if value == min(values)]
    assert nth_least(values, turn) == places[turn % len(places)]
