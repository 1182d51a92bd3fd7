from random import Random

import pytest

from dev_opsgpt.routing.candidate import Asked
from dev_opsgpt.routing.dispatch import Dispatcher, dispatcher
from dev_opsgpt.routing.policies import POLICIES
from dev_opsgpt.routing.table import Table, Worker
from tests.routing.replicas import idle


def rows(*names: str) -> list[Worker]:
    return [Worker(address=name, models=("m",), kind="opsgpt") for name in names]


def test_each_model_has_its_own_turns() -> None:
    choice = dispatcher("round_robin", Random(1))
    replicas = rows("a", "b")
    chosen = [
        (choice.choose("m", replicas).address, choice.choose("n", replicas).address)
        for _ in range(4)
    ]
    assert chosen == [("a", "a"), ("b", "b"), ("a", "a"), ("b", "b")]


def test_each_model_has_its_own_policy() -> None:
    policies = {"turns": "round_robin", "sessions": "session_affinity", "prompts": "prefix_cache"}
    choice = Dispatcher(policies.__getitem__, Random(1))
    assert choice.reads("turns") == frozenset()
    assert choice.reads("sessions") == {"session"}
    assert choice.reads("prompts") == {"prompt"}
    replicas = idle(3)
    chosen: dict[str, set[str]] = {model: set() for model in policies}
    for _ in range(9):
        asked = Asked("a session", b"a prompt" * 99)
        for model in policies:
            chosen[model].add(choice.choose(model, replicas, asked, 0.0).address)
    kept = {model: len(addresses) for model, addresses in chosen.items()}
    assert kept == {"turns": 3, "sessions": 1, "prompts": 1}


def test_nobody_to_choose() -> None:
    assert dispatcher("least_load", Random(1)).choose("m", []) is None


@pytest.mark.parametrize("name", POLICIES)
def test_the_only_one(name: str) -> None:
    choice = dispatcher(name, Random(1))
    replica = rows("a")
    assert all(choice.choose("m", replica) is replica[0] for _ in range(3))


def test_unknown_policy_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no dispatch policy 'best'; there are least_load, "):
        dispatcher("best", Random(1))
    choice = Dispatcher(lambda model: model, Random(1))
    for ask in (choice.reads, lambda model: choice.choose(model, rows("a"))):
        with pytest.raises(ValueError, match="no dispatch policy 'best'"):
            ask("best")
    assert choice.choose("round_robin", rows("a")) is not None


def test_the_same_seed_gives_the_same_lottery() -> None:
    replicas = rows("a", "b", "c")
    first, second = dispatcher("lottery", Random(3)), dispatcher("lottery", Random(3))
    assert [first.choose("m", replicas) for _ in range(20)] == [
        second.choose("m", replicas) for _ in range(20)
    ]


def test_shortest_queue_with_counted_dispatches_fills_evenly() -> None:
    table = Table()
    for row in rows("a", "b", "c"):
        table.register(row, now=0, lifetime=None)
    choice = dispatcher("shortest_queue", Random(1))
    chosen = []
    for _ in range(6):
        worker = choice.choose("m", table.replicas("m"))
        table.dispatched(worker.address)
        chosen.append(worker.address)
    assert chosen == ["a", "b", "c", "a", "b", "c"]


def models(choice: Dispatcher) -> set[str]:
    return set(choice._models)


def test_names_that_clients_invent_cost_nothing() -> None:
    choice = dispatcher("prefix_cache", Random(1))
    for number in range(9):
        assert choice.choose(f"invented {number}", []) is None
        choice.reads(f"invented {number}")
    assert models(choice) == set()


def test_a_model_is_forgotten_with_its_last_replica() -> None:
    choice = dispatcher("round_robin", Random(1))
    replicas = rows("a", "b", "c")
    choice.choose("m", replicas)
    choice.choose("n", replicas[2:])
    # One that was tried is left out: that says nothing about who is there.
    choice.choose("m", replicas[1:])
    choice.gone("b")
    choice.gone("c")
    assert models(choice) == {"m"}
    assert choice.choose("m", replicas[:1]) is replicas[0]
    choice.gone("a")
    choice.gone("never there")
    assert models(choice) == set()


def test_the_policy_hears_who_left() -> None:
    choice = dispatcher("session_affinity", Random(1))
    replicas = idle(5)
    asked = Asked("a session")
    home = choice.choose("m", replicas, asked)
    choice.gone(home.address)
    others = [replica for replica in replicas if replica is not home]
    assert choice.choose("m", others, asked) is not home
    assert choice.choose("m", replicas, asked) is home


def test_a_changed_configuration_begins_anew_only_where_the_policy_changed() -> None:
    policies = {"m": "round_robin", "n": "round_robin"}
    choice = Dispatcher(policies.__getitem__, Random(1))
    replicas = rows("a", "b", "c")
    for model in policies:
        choice.choose(model, replicas)
    policies["n"] = "least_load"
    choice.reconfigured()
    assert models(choice) == {"m"}
    assert choice.choose("m", replicas).address == "b"
    assert choice.choose("n", replicas).address == "a"
