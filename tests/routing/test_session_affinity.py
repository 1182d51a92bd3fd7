from collections import Counter
from dataclasses import replace
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.routing.candidate import NOTHING, Asked
from dev_opsgpt.routing.load import SAMPLE, weight
from dev_opsgpt.routing.policies.session_affinity import BOUND, SessionAffinity
from tests.routing.replicas import REPLICAS, Replica, idle

SESSIONS = [Asked(f"session-{n}") for n in range(200)]


def homes(policy: SessionAffinity, replicas: list[Replica]) -> list[str]:
    return [policy.choose(replicas, asked, 0.0).address for asked in SESSIONS]


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_a_session_stays_where_it_is(count: int) -> None:
    replicas = idle(count)
    one, other = SessionAffinity(Random(1)), SessionAffinity(Random(2))
    before = homes(one, replicas)
    assert homes(one, replicas) == before
    assert homes(other, replicas[::-1]) == before, "another gateway sends it elsewhere"


def test_few_sessions_move_when_replicas_come_and_go() -> None:
    replicas, policy = idle(8), SessionAffinity(Random(1))
    before = homes(policy, replicas[:7])
    after = homes(policy, replicas)
    moved = [now for was, now in zip(before, after, strict=True) if was != now]
    assert set(moved) == {replicas[7].address}
    assert len(moved) < 2 * len(SESSIONS) / 8
    policy.gone(replicas[7].address)
    assert homes(policy, replicas[:7]) == before


def test_while_a_replica_is_down_only_its_sessions_move() -> None:
    replicas, policy = idle(6), SessionAffinity(Random(1))
    before = homes(policy, replicas)
    during = homes(policy, replicas[:2] + replicas[3:])
    for was, now in zip(before, during, strict=True):
        assert now == was or was == replicas[2].address
    assert replicas[2].address not in during
    assert homes(policy, replicas) == before


def test_when_a_second_replica_comes_the_sessions_are_shared() -> None:
    replicas, policy = idle(2), SessionAffinity(Random(1))
    homes(policy, replicas[:1])
    shares = Counter(homes(policy, replicas))
    assert min(shares.values()) > len(SESSIONS) / 4


@given(replicas=REPLICAS, session=st.text())
def test_the_bound_holds(replicas: list[Replica], session: str) -> None:
    replicas = replicas[:SAMPLE]
    chosen = SessionAffinity(Random(1)).choose(replicas, Asked(session), 0.0)
    weights = sum(map(weight, replicas))
    if weights:
        requests = 1 + sum(r.running + r.waiting for r in replicas)
        most = ceil(BOUND * requests * weight(chosen) / weights)
        assert chosen.running + chosen.waiting + 1 <= most


@given(count=st.integers(2, SAMPLE), requests=st.integers(1, 80))
def test_one_session_cannot_bury_its_home(count: int, requests: int) -> None:
    replicas, policy = idle(count), SessionAffinity(Random(1))
    for sent in range(1, requests + 1):
        chosen = policy.choose(replicas, SESSIONS[0], 0.0)
        place = replicas.index(chosen)
        replicas[place] = replace(chosen, running=chosen.running + 1)
        assert replicas[place].running <= ceil(BOUND * sent / count)


def test_in_a_large_fleet_a_full_home_is_left_too() -> None:
    replicas, policy = idle(200), SessionAffinity(Random(1))
    home = policy.choose(replicas, SESSIONS[0], 0.0)
    replicas[replicas.index(home)] = replace(home, running=30)
    assert policy.choose(replicas, SESSIONS[0], 0.0).running == 0


def test_without_a_session_the_least_loaded_is_chosen() -> None:
    replicas = [Replica("a", running=2), Replica("b", running=1), Replica("c", running=2)]
    assert SessionAffinity(Random(1)).choose(replicas, NOTHING, 0.0) is replicas[1]
