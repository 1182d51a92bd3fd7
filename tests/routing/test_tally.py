from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.routing.tally import SLICES, Tally

# Quarters of seconds are exact in floats, so that the edges of the window can be compared.
QUARTERS = st.integers(0, 400).map(lambda n: n / 4)
WINDOW = 20.0


@given(steps=st.lists(st.tuples(QUARTERS, st.booleans()), max_size=60), start=QUARTERS)
def test_it_tells_at_least_nine_tenths_of_the_window_and_never_more(
    steps: list[tuple[float, bool]], start: float
) -> None:
    tally = Tally(WINDOW)
    now = start
    seen: list[tuple[float, bool]] = []
    for pause, kind in steps:
        now += pause
        if now >= tally.turn_at:
            tally.turn(now)
        tally.first += kind
        tally.second += not kind
        seen.append((now, kind))
        for told, wanted in zip(tally.recent(now), (True, False), strict=True):
            ages = [now - at for at, kind in seen if kind == wanted]
            assert sum(age < WINDOW * (1 - 1 / SLICES) for age in ages) <= told
            assert told <= sum(age <= WINDOW for age in ages)


def test_after_a_long_silence_nothing_is_left() -> None:
    tally = Tally(10)
    tally.turn(0)
    tally.first = 5
    assert tally.recent(9.5) == (5, 0)
    assert tally.recent(1e9) == (0, 0)


def test_cleared_it_starts_over() -> None:
    tally = Tally(10)
    tally.first += 3
    tally.second += 1
    tally.clear()
    assert tally.recent(0) == (0, 0)
    tally.second += 1
    assert tally.recent(0) == (0, 1)
    assert tally.recent(11) == (0, 0)
