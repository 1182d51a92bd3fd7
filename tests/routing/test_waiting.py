import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dev_opsgpt.routing.waiting import LONGEST_RETRY, SHORTEST_RETRY, Full, WaitingRoom


def filled(size: int, *items: tuple[str, int]) -> WaitingRoom[str]:
    room: WaitingRoom[str] = WaitingRoom(size)
    for name, priority in items:
        room.enter(name, priority, 0)
    return room


def test_the_important_first_and_the_oldest_among_equals() -> None:
    room = filled(9, ("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1))
    assert [room.pop(0) for _ in range(5)] == ["b", "d", "a", "c", "e"]
    with pytest.raises(IndexError):
        room.pop(0)


def test_a_full_room_refuses_equals() -> None:
    room = filled(2, ("a", 0), ("b", 1))
    with pytest.raises(Full):
        room.enter("c", 0, 0)
    with pytest.raises(Full):
        room.enter("d", -1, 0)
    assert "c" not in room
    assert len(room) == 2


def test_a_full_room_sheds_the_newest_of_the_lowest() -> None:
    room = filled(3, ("a", 0), ("b", 0), ("c", 1))
    assert room.enter("d", 1, 0) == "b"
    assert room.enter("e", 2, 0) == "a"
    with pytest.raises(Full):
        room.enter("f", 1, 0)
    assert room.enter("g", 2, 0) == "d"
    assert [room.pop(0) for _ in range(3)] == ["e", "g", "c"]


def test_who_leaves_is_forgotten() -> None:
    room = filled(3, ("a", 0), ("b", 0))
    assert room.leave("a")
    assert not room.leave("a")
    assert not room.leave("z")
    assert room.pop(0) == "b"
    assert not room.leave("b")
    assert room.enter("a", 0, 0) is None


def test_nobody_waits_twice() -> None:
    room = filled(3, ("a", 0))
    with pytest.raises(ValueError, match="waits already"):
        room.enter("a", 1, 0)


def test_no_room_at_all() -> None:
    with pytest.raises(Full):
        filled(0, ("a", 99))


def test_retry_after_goes_by_the_pace_of_late() -> None:
    room = filled(100, *((str(n), 0) for n in range(100)))
    assert room.retry_after(0) == SHORTEST_RETRY
    for n in range(80):
        room.pop((n + 1) * 0.5)
    assert room.retry_after(40) == pytest.approx(20 * 0.5)
    for n in range(20):
        room.enter(f"more {n}", 0, 40)
    assert room.retry_after(40) == pytest.approx(40 * 0.5)


def test_retry_after_sees_that_nothing_moves() -> None:
    room = filled(9, ("a", 0), ("b", 0), ("c", 0))
    room.pop(1)
    assert room.retry_after(1) == pytest.approx(2)
    assert room.retry_after(11) == pytest.approx(20)
    assert room.retry_after(1e6) == LONGEST_RETRY


def test_an_empty_room_is_no_standstill() -> None:
    room = filled(9, ("a", 0))
    room.pop(2)
    assert room.retry_after(1000) == SHORTEST_RETRY
    room.enter("b", 0, 1000)
    room.pop(1002)
    room.enter("c", 0, 1002)
    assert room.retry_after(1002) == pytest.approx(2)


class AgainstAModel(RuleBasedStateMachine):
    """The room against the plainest thing that could be right: a list, sorted when it matters."""

    @initialize(size=st.integers(0, 6))
    def begin(self, size: int) -> None:
        self.room: WaitingRoom[int] = WaitingRoom(size)
        self.plain: list[tuple[int, int]] = []  # (priority, item); items count up with time
        self.serial = 0
        self.now = 0.0

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(priority=st.integers(-2, 2))
    def enter(self, priority: int) -> None:
        self.serial += 1
        lowest = min((level for level, _ in self.plain), default=priority)
        if len(self.plain) < self.room.size:
            assert self.room.enter(self.serial, priority, self.now) is None
        elif priority > lowest:
            shed = max(item for level, item in self.plain if level == lowest)
            assert self.room.enter(self.serial, priority, self.now) == shed
            self.plain.remove((lowest, shed))
        else:
            with pytest.raises(Full):
                self.room.enter(self.serial, priority, self.now)
            return
        self.plain.append((priority, self.serial))

    @rule()
    def pop(self) -> None:
        if not self.plain:
            for look in (self.room.first, lambda: self.room.pop(self.now)):
                with pytest.raises(IndexError):
                    look()
            return
        level, item = min(self.plain, key=lambda waits: (-waits[0], waits[1]))
        assert self.room.first() == item
        assert self.room.pop(self.now) == item
        self.plain.remove((level, item))

    @rule(item=st.integers(1, 40))
    def leave(self, item: int) -> None:
        assert self.room.leave(item) == any(item == waits for _, waits in self.plain)
        self.plain = [waits for waits in self.plain if waits[1] != item]

    @invariant()
    def agrees(self) -> None:
        assert len(self.room) == len(self.plain) <= self.room.size
        assert all(item in self.room for _, item in self.plain)
        assert SHORTEST_RETRY <= self.room.retry_after(self.now) <= LONGEST_RETRY


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=100, stateful_step_count=50)
