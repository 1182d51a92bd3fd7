"""The gateway's view of the workers."""

from dev_opsgpt.routing.fleet import DOUBTED_FOR, DOWN_FOR, REMEMBERED, Fleet
from dev_opsgpt.routing.table import Worker


def row(name: str, *models: str, beats: int = 1, queue: int = 0, draining: bool = False) -> Worker:
    return Worker(
        address=f"http://{name}",
        models=models or ("m",),
        kind="opsgpt",
        beats=beats,
        queue_length=queue,
        draining=draining,
    )


def names(fleet: Fleet, model: str = "m", now: float = 0.0) -> list[str]:
    return [r.row.address.removeprefix("http://") for r in fleet.ready(model, now)]


def test_rows_come_change_and_go() -> None:
    fleet = Fleet()
    fleet.replace([row("a"), row("b", "m", "n")], 0)
    assert (fleet.models(), names(fleet), names(fleet, "n")) == (["m", "n"], ["a", "b"], ["b"])
    fleet.upsert([row("a", "n", beats=2), row("c")])
    assert (names(fleet), names(fleet, "n")) == (["b", "c"], ["a", "b"])
    gone = fleet.replace([row("c")], 1)
    assert sorted(r.row.address for r in gone) == ["http://a", "http://b"]
    assert fleet.models() == ["m"]


def test_draining_replicas_are_not_ready() -> None:
    fleet = Fleet()
    fleet.upsert([row("a"), row("b", draining=True), row("c")])
    assert names(fleet) == ["a", "c"]


def test_a_replica_that_is_down_is_the_last_resort_until_its_next_beat() -> None:
    fleet = Fleet()
    fleet.upsert([row("a"), row("b")])
    a, b = fleet.ready("m", 0)
    fleet.down(a, 0)
    assert names(fleet, now=1) == ["b"]
    assert names(fleet, now=DOWN_FOR + 1) == ["a", "b"]
    fleet.upsert([row("a", beats=1)])
    assert names(fleet, now=1) == ["b"], "the same beat again is no sign of life"
    fleet.upsert([row("a", beats=2)])
    assert names(fleet, now=1) == ["a", "b"]
    fleet.down(a, 1)
    fleet.down(b, 1)
    assert names(fleet, now=2) == ["a", "b"]


def test_load_is_ours_live_and_others_as_reported() -> None:
    fleet = Fleet()
    fleet.upsert([row("a", queue=3)])
    replica = fleet.ready("m", 0)[0]
    assert replica.running == 3
    replica.in_flight = 2
    fleet.upsert([row("a", beats=2, queue=5)])
    assert replica.running == 5
    replica.in_flight = 0
    assert replica.running == 3


def test_a_model_that_died_is_expected_for_a_while_and_one_that_left_is_not() -> None:
    fleet = Fleet(declared=["d"])
    fleet.upsert([row("a", "died"), row("b", "left")])
    fleet.remove(["http://a"], 10)
    fleet.remove(["http://b"], 10, lost=False)
    assert fleet.expected("d", 10)
    fleet.upsert([row("d", "d")])
    fleet.remove(["http://d"], 10, lost=False)
    assert not fleet.expected("d", 10), "it was there, and was taken away"
    assert fleet.expected("died", 10)
    assert not fleet.expected("died", 10 + REMEMBERED)
    assert not fleet.expected("left", 10)
    assert not fleet.expected("never", 10)


def test_a_model_whose_replicas_all_drain_is_expected() -> None:
    fleet = Fleet()
    fleet.upsert([row("a", draining=True)])
    assert names(fleet) == []
    assert fleet.expected("m", 0)


def test_who_a_returning_controller_does_not_list_has_time_to_register_again() -> None:
    fleet = Fleet()
    fleet.upsert([row("a"), row("b"), row("c")])
    fleet.resume([row("c")], 10)
    assert names(fleet) == ["a", "b", "c"]
    assert fleet.expire(10 + DOUBTED_FOR["opsgpt"]) == []
    fleet.upsert([row("a")])
    fleet.resume([row("a"), row("c")], 15)
    gone = fleet.expire(11 + DOUBTED_FOR["opsgpt"])
    assert [replica.row.address for replica in gone] == ["http://b"], "not at 15, but since 10"
    assert fleet.expire(1000) == []
    assert names(fleet) == ["a", "c"]
