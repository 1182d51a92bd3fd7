from collections import Counter
from dataclasses import replace
from random import Random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.routing.candidate import NOTHING, Asked
from dev_opsgpt.routing.policies.prefix_cache import FEW, MISSED, WORTH, PrefixCache
from dev_opsgpt.routing.prefix_tree import LONGEST
from tests.routing.replicas import REPLICAS, Replica, idle

RNG = Random(1)
SYSTEM = b'[{"role":"system","content":"' + RNG.randbytes(1500).hex().encode() + b'"}'


def turns(name: str, count: int, system: bytes = SYSTEM) -> list[Asked]:
    """The requests of one conversation."""
    rng = Random(name)
    said, found = system, []
    for _ in range(count):
        said += b',{"role":"user","content":"' + rng.randbytes(60).hex().encode() + b'"}'
        found.append(Asked(None, said + b"]"))
        said += b',{"role":"assistant","content":"' + rng.randbytes(90).hex().encode() + b'"}'
    return found


def send(policy: PrefixCache, replicas: list[Replica], asked: Asked) -> Replica:
    """The choice for a request of its own, whatever was asked before."""
    return policy.choose(replicas, Asked(None, asked.prompt), 0.0)


def addresses(policy: PrefixCache, replicas: list[Replica], asked: list[Asked]) -> list[str]:
    return [send(policy, replicas, one).address for one in asked]


@pytest.mark.parametrize("count", [2, 4, FEW + 1, 300])
def test_a_conversation_stays_where_it_began(count: int) -> None:
    policy, replicas = PrefixCache(Random(1)), idle(count)
    chats = [turns(f"chat {n}", 6, Random(n).randbytes(3000)) for n in range(20)]
    chosen = [addresses(policy, replicas, list(turn)) for turn in zip(*chats, strict=True)]
    assert all(turn == chosen[0] for turn in chosen)
    assert len(set(chosen[0])) > 1


def test_chats_with_the_same_system_prompt_go_where_it_is_cached() -> None:
    policy, replicas = PrefixCache(Random(1)), idle(4)
    first = policy.choose(replicas, turns("a", 1)[0], 0.0)
    assert addresses(policy, replicas, turns("b", 3)) == [first.address] * 3


@pytest.mark.parametrize("count", [4, 40])
def test_a_holder_that_is_too_busy_is_left_for_another_that_becomes_one(count: int) -> None:
    policy, replicas = PrefixCache(Random(1)), idle(count)
    request = turns("a", 1)[0]
    first = send(policy, replicas, request)
    replicas[replicas.index(first)] = replace(first, running=12)
    second = send(policy, replicas, request)
    assert second.address != first.address
    assert addresses(policy, replicas, [request] * 5) == [second.address] * 5


@settings(max_examples=50)
@given(replicas=REPLICAS, seed=st.integers())
def test_no_cache_is_worth_more_than_so_many_usual_loads(
    replicas: list[Replica], seed: int
) -> None:
    loads = {
        r.address: (r.running + r.waiting + 1) / ((r.limit or 1) * r.speed or 1e-9)
        for r in replicas
    }
    replicas, policy = replicas[:FEW], PrefixCache(Random(seed))
    for asked in turns(str(seed), 4):
        policy.choose(replicas[seed % len(replicas) :], asked, 0.0)
    chosen = policy.choose(replicas, asked, 0.0)
    if len(replicas) > 1 and all(replica.speed for replica in replicas):
        of_all = sorted(loads[replica.address] for replica in replicas)
        usual = fmean(of_all[:-1])
        assert loads[chosen.address] <= of_all[0] + WORTH * usual + 1e-6


@settings(max_examples=30)
@given(count=st.sampled_from([2, 3, FEW, FEW + 1, 60]), sent=st.integers(1, 200))
def test_one_prompt_for_all_does_not_bury_one_replica(count: int, sent: int) -> None:
    replicas, policy = idle(count), PrefixCache(Random(1))
    request = turns("a", 1)[0]
    for _ in range(sent):
        chosen = send(policy, replicas, request)
        replicas[replicas.index(chosen)] = replace(chosen, running=chosen.running + 1)
    assert max(replica.running for replica in replicas) <= 4 + 5 * sent / count


def test_without_a_prompt_the_load_decides() -> None:
    replicas = [Replica("a", running=2), Replica("b", running=1), Replica("c", running=2)]
    policy = PrefixCache(Random(1))
    assert policy.choose(replicas, NOTHING, 0.0) is replicas[1]
    assert Counter(addresses(policy, idle(4), [NOTHING] * 8)) == Counter(
        {replica.address: 2 for replica in idle(4)}
    )


def test_what_the_only_replica_saw_is_known_when_a_second_comes() -> None:
    policy, replicas = PrefixCache(Random(1)), idle(2)
    chat = turns("a", 8)
    addresses(policy, replicas[:1], chat[:2])
    policy.choose(replicas, turns("b", 1, Random(9).randbytes(3000))[0], 0.0)
    assert addresses(policy, replicas, chat[2:]) == [replicas[0].address] * 6


@pytest.mark.parametrize("count", [4, 40])
def test_a_replica_that_comes_back_has_nothing_cached(count: int) -> None:
    policy, replicas = PrefixCache(Random(1)), idle(count)
    chat = turns("a", 2)
    first = policy.choose(replicas, chat[0], 0.0)
    others = [replica for replica in replicas if replica is not first]
    busy = [replace(replica, running=1) for replica in replicas]
    policy.gone(first.address)
    second = policy.choose(others, chat[0], 0.0)
    # The first is back, with less load than the second: without a cache it is no match for it.
    now = [replica if replica.address == second.address else replicas[0] for replica in busy]
    assert second.address != first.address
    assert policy.choose([first, *now[:1], second], chat[1], 0.0).address == second.address


def test_a_holder_that_is_left_out_is_not_chosen_and_not_forgotten() -> None:
    policy, replicas = PrefixCache(Random(1)), idle(40)
    chat = turns("a", 4)
    first = policy.choose(replicas, chat[0], 0.0)
    others = [replica for replica in replicas if replica is not first]
    assert policy.choose(others, chat[1], 0.0) is not first
    replicas = [
        replica if replica is first else replace(replica, running=1) for replica in replicas
    ]
    assert policy.choose(replicas, chat[2], 0.0) is first


def test_one_without_speed_is_the_last_choice() -> None:
    policy = PrefixCache(Random(1))
    replicas = [Replica("none", speed=0), Replica("some", running=9)]
    assert addresses(policy, replicas, turns("a", 3)) == ["some"] * 3
    assert addresses(policy, replicas[:1] * 2, turns("b", 1)) == ["none"]


def test_a_replica_that_did_not_take_the_request_has_not_seen_it() -> None:
    policy, replicas = PrefixCache(Random(1)), idle(4)
    first, second = turns("a", 2)
    refused = policy.choose(replicas, first, 0.0)
    taken = policy.choose([replica for replica in replicas if replica is not refused], first, 0.0)
    assert policy.choose(replicas, second, 0.0) is taken


def test_what_a_lone_replica_saw_is_forgotten_when_it_left() -> None:
    policy, replicas = PrefixCache(Random(1)), idle(3)
    chat = turns("a", 2)
    send(policy, replicas[:1], chat[0])
    policy.gone(replicas[0].address)
    send(policy, replicas[1:2], chat[0])
    assert send(policy, replicas, chat[1]) is replicas[1]


def test_of_a_lone_replica_no_more_is_kept_than_can_be_used() -> None:
    policy, replicas = PrefixCache(Random(1)), idle(2)
    for number in range(3 * MISSED):
        policy.choose(replicas[:1], Asked(None, b"%08d" % number * LONGEST), 0.0)
    assert len(policy._missed) == MISSED
    assert max(len(prompt) for _, prompt in policy._missed) == LONGEST
    policy.choose(replicas, NOTHING, 0.0)
    assert not policy._missed


def test_when_the_last_one_left_takes_a_request_it_has_seen_it() -> None:
    policy, replicas = PrefixCache(Random(1)), idle(2)
    first, second = turns("a", 2)
    refused = policy.choose(replicas, first, 0.0)
    others = [replica for replica in replicas if replica is not refused]
    assert policy.choose(others, first, 0.0) is others[0]
    assert policy.choose(replicas, second, 0.0) is others[0]
