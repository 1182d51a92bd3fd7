from random import Random

import pytest

from dev_opsgpt.routing.dispatch import dispatcher
from dev_opsgpt.routing.table import Table, Worker


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


def test_nobody_to_choose() -> None:
    assert dispatcher("least_load", Random(1)).choose("m", []) is None


def test_unknown_policy_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no dispatch policy 'best'; there are least_load, "):
        dispatcher("best", Random(1))


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
