from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.routing.roster import Roster
from dev_opsgpt.routing.table import Worker


def rows(*names: str) -> list[Worker]:
    return [Worker(address=name, models=("m",), kind="opsgpt") for name in names]


def test_all_are_new_at_first() -> None:
    roster = Roster()
    assert roster.newcomers(rows("a", "b")) == ["a", "b"]
    assert roster.newcomers(rows("a", "b")) == []
    assert "a" in roster
    assert "c" not in roster


def test_a_newcomer_at_the_end_is_found_at_once() -> None:
    roster = Roster()
    roster.newcomers(rows("a", "b", "c"))
    assert roster.newcomers(rows("b", "d")) == ["d"]


def test_a_newcomer_in_the_middle_is_found_in_time() -> None:
    roster = Roster()
    roster.newcomers(rows("a", "b", "c"))
    found = [roster.newcomers(rows("a", "x", "c")) for _ in range(3)]
    assert sorted(found) == [[], [], ["x"]]


def test_one_that_was_forgotten_is_new() -> None:
    roster = Roster()
    roster.newcomers(rows("a", "b"))
    roster.forget("b")
    assert roster.newcomers(rows("a", "b")) == ["b"]
    roster.forget("never there")


@given(data=st.data(), count=st.integers(1, 12))
def test_everyone_is_found_wherever_they_stand(data: st.DataObject, count: int) -> None:
    names = [f"r{n}" for n in range(count)]
    roster = Roster()
    if data.draw(st.booleans()):
        roster.newcomers(rows(*names))
    for _ in range(5):
        left = data.draw(st.permutations(names))[: data.draw(st.integers(1, count))]
        candidates = rows(*left)
        for name in names:
            found = roster.find(candidates, name)
            assert (found.address if found else None) == (name if name in left else None)
