"""Windows keep what they promise, whatever happens in them; periods and waits are written right."""

import math
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.routing.limits import AUDIT, BUCKETS, CELLS, FIRST, TOTAL, Window, duration, span

# Pauses of a tenth of a second, of seconds, and longer than a whole window.
PAUSES = st.lists(
    st.one_of(
        st.floats(0, 0.3),
        st.floats(0, 20),
        st.sampled_from([0.1, 59.9, 60.0, 60.1, 300.0]),
    ),
    max_size=60,
)
STARTS = st.floats(0, 1e7)


def cells() -> "memoryview[int]":
    return memoryview(bytearray(CELLS * 8)).cast("Q")


def admit(window: Window, now: float, limit: int, amount: int = 1) -> bool:
    if window.used(int(now * 10)) + amount > limit:
        return False
    window.add(amount)
    return True


@given(STARTS, PAUSES, st.integers(1, 12))
def test_never_refused_below_the_limit_and_never_above_it(
    now: float, pauses: list[float], limit: int
) -> None:
    window = Window(cells())
    admitted: list[float] = []
    for pause in pauses:
        now += pause
        recent = sum(now - time < 60 for time in admitted)
        if admit(window, now, limit):
            admitted.append(now)
        else:
            assert recent >= limit
    for first in admitted:
        assert sum(first <= time <= first + 59.9 - 1e-6 for time in admitted) <= limit


@given(STARTS, st.lists(st.tuples(st.floats(0, 15), st.integers(0, 50)), max_size=40))
def test_the_total_is_that_of_the_buckets(now: float, steps: list[tuple[float, int]]) -> None:
    row = cells()
    window = Window(row)
    for pause, amount in steps:
        now += pause
        window.used(int(now * 10))
        window.add(amount)
        assert row[TOTAL] == sum(row[FIRST:])


@given(
    STARTS,
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 50), st.integers(0, 90)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_corrections_count_the_real_amount(
    now: float, steps: list[tuple[float, int, int]], random: Random
) -> None:
    """What was reserved is settled in any order, at any time; what counts in the end is what was
    used by requests of the last minute, and what outlived the minute and used more than it said."""
    window = Window(cells())
    open_: list[tuple[int, int, int]] = []
    counted: dict[int, int] = {}

    def settle() -> None:
        bucket, reserved, used = open_.pop(random.randrange(len(open_)))
        newest = int(now * 10)
        window.used(newest)
        window.correct(bucket, used - reserved)
        if bucket > newest - BUCKETS:
            counted[bucket] += used - reserved
        elif used > reserved:
            counted[newest] = counted.get(newest, 0) + used - reserved

    for pause, reserved, used in steps:
        now += pause
        window.used(int(now * 10))
        bucket = window.add(reserved)
        counted[bucket] = counted.get(bucket, 0) + reserved
        open_.append((bucket, reserved, used))
        if random.random() < 0.5:
            settle()
    while open_:
        settle()
    expected = sum(n for bucket, n in counted.items() if bucket > int(now * 10) - BUCKETS)
    assert window.used(int(now * 10)) == expected


@given(STARTS, PAUSES, st.integers(1, 8))
def test_the_wait_is_exact(now: float, pauses: list[float], limit: int) -> None:
    window = Window(cells())
    for pause in pauses:
        now += pause
        if admit(window, now, limit):
            continue
        free = window.frees_at(1)
        assert now < free <= now + 60 + 1e-6
        # A moment before there is no room; then there is.
        assert window.used(int((free - 0.05) * 10)) == limit
        now = free + 1e-6 * max(1.0, free)
        assert admit(window, now, limit)


def test_times_at_which_it_is_empty() -> None:
    window = Window(cells())
    assert window.empty_at() == 0.0
    for now, amount in ((100.0, 3), (130.0, 2), (150.0, 0)):
        window.used(int(now * 10))
        window.add(amount)
    assert window.empty_at() == 190.0
    assert [window.frees_at(amount) for amount in (1, 3, 4, 5)] == [160.0, 160.0, 190.0, 190.0]


def test_an_older_time_counts_as_the_newest() -> None:
    window = Window(cells())
    window.used(1000)
    assert window.add(1) == 1000
    assert window.used(998) == 1
    assert window.add(1) == 1000


def test_a_clock_that_began_anew_begins_a_new_window() -> None:
    window = Window(cells())
    window.used(1_000_000)
    window.add(5)
    assert window.used(10) == 0
    assert window.add(1) == 10
    assert window.used(20) == 1


@pytest.mark.parametrize("wrong", [0, 2, 9])
def test_a_total_that_a_killed_process_left_wrong_is_mended(wrong: int) -> None:
    row = cells()
    window = Window(row)
    window.used(1000)
    window.add(5)
    row[TOTAL] = wrong
    assert window.used(1000 + AUDIT) == 5
    window.correct(1000, -5)
    row[TOTAL] = wrong
    window.correct(1000, -9)
    assert window.used(1000 + AUDIT * 2) == 0


def test_periods() -> None:
    def at(*date: int) -> float:
        return datetime(*date, tzinfo=UTC).timestamp()  # type: ignore[arg-type]

    assert span("total", 5.0).begin == 0
    assert span("total", 5.0).end == math.inf
    day = span("day", at(2028, 2, 28, 23, 59, 59))
    assert (day.begin, day.end) == (at(2028, 2, 28), at(2028, 2, 29))
    month = span("month", at(2027, 12, 31, 23, 59, 59))
    assert (month.begin, month.end) == (at(2027, 12, 1), at(2028, 1, 1))
    assert span("month", at(2028, 2, 1)).end == at(2028, 3, 1)


@given(st.sampled_from(["day", "month"]), st.floats(0, 4e9))
def test_periods_follow_each_other(period: str, at: float) -> None:
    now = span(period, at)  # type: ignore[arg-type]
    following = span(period, now.end)  # type: ignore[arg-type]
    assert now.begin <= at < now.end == following.begin
    assert now.number < following.number


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0ms"),
        (0, "0ms"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (0.174, "174ms"),
        (1, "1s"),
        (7.66, "7.66s"),
        (59.9999, "1m0s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (86_399.5, "23h59m59.5s"),
    ],
)
def test_waits_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
