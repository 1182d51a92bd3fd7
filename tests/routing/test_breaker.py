import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dev_opsgpt.routing.breaker import Breaker, BreakerOptions

OPTIONS = BreakerOptions(
    failures=3, failure_rate=0.5, window=30.0, open_for=5.0, open_for_most=20.0
)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(OPTIONS)
    for _ in range(OPTIONS.failures):
        breaker.failed(now)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(OPTIONS)
    assert breaker.state(0) == "closed"
    assert [breaker.failed(0) for _ in range(3)] == [False, False, True]
    assert not breaker.is_closed
    assert breaker.state(0) == "open"
    assert not breaker.allows(4.9)
    assert breaker.allows(5)
    assert breaker.state(5) == "half_open"


def test_a_success_between_ends_the_row() -> None:
    breaker = Breaker(OPTIONS)
    for now in range(0, 3000, 30):
        breaker.failed(now)
        breaker.failed(now)
        breaker.succeeded(now)
        assert breaker.is_closed, "two failures are too few for a rate, and no three are in a row"


def test_a_share_of_failures_opens_it() -> None:
    breaker = Breaker(OPTIONS)
    outcomes = []
    for now in range(5):
        breaker.succeeded(now)
        outcomes.append(breaker.failed(now))
    assert outcomes == [False, False, True, False, False], "a half, as soon as three failed"


def test_many_failures_are_fine_among_more_successes() -> None:
    breaker = Breaker(OPTIONS)
    for _ in range(100):
        breaker.succeeded(0)
        breaker.succeeded(0)
        breaker.failed(0)
    assert breaker.is_closed


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker(OPTIONS)
    for now in range(0, 200, 20):
        breaker.succeeded(now)
        assert not breaker.failed(now), "no three within 30 seconds"


def test_half_open_lets_one_through() -> None:
    breaker = opened()
    assert breaker.allows(5)
    breaker.taken(5)
    assert not breaker.allows(5)
    assert breaker.state(5) == "half_open"
    breaker.succeeded(6)
    assert breaker.state(6) == "closed"
    assert breaker.is_closed
    assert breaker.allows(6)


def test_pauses_double_up_to_the_longest_and_a_success_resets_them() -> None:
    breaker = opened()
    now, pauses = 0.0, []
    for _ in range(5):
        pause = next(s for s in range(100) if breaker.allows(now + s))
        pauses.append(pause)
        now += pause
        breaker.taken(now)
        assert breaker.failed(now)
    assert pauses == [5, 10, 20, 20, 20]
    now += 20
    breaker.taken(now)
    breaker.succeeded(now)
    for _ in range(3):
        breaker.failed(now)
    assert not breaker.allows(now + 4)
    assert breaker.allows(now + 5)


def test_a_trial_that_is_not_heard_of_again_makes_room() -> None:
    breaker = opened()
    breaker.taken(5)
    assert not breaker.allows(9.9)
    assert breaker.allows(10)
    breaker.taken(10)
    assert not breaker.allows(10)
    breaker.succeeded(11)  # of whichever of the two
    assert breaker.is_closed


def test_outcomes_from_before_it_opened_move_nothing() -> None:
    breaker = opened()
    breaker.succeeded(1)
    assert not breaker.is_closed
    assert not breaker.failed(2)
    assert breaker.allows(5), "the pause is still the first one"
    breaker.succeeded(6)
    assert breaker.state(6) == "half_open", "no trial was sent"


def test_a_request_sent_for_want_of_another_replica_is_a_trial() -> None:
    breaker = opened()
    breaker.taken(1)
    breaker.succeeded(2)
    assert breaker.is_closed


def test_what_led_to_the_opening_is_forgotten_when_it_closes() -> None:
    breaker = opened()
    breaker.taken(5)
    breaker.succeeded(5)
    assert not breaker.failed(6)
    assert not breaker.failed(6)
    assert breaker.failed(6)


def test_taken_and_left_alone_when_closed() -> None:
    breaker = Breaker(OPTIONS)
    breaker.taken(0)
    assert breaker.is_closed
    assert breaker.allows(0)


@pytest.mark.parametrize("most", [1.0, 5.0])
def test_the_longest_pause_bounds_the_first_one_too(most: float) -> None:
    breaker = Breaker(BreakerOptions(failures=1, open_for=5.0, open_for_most=most))
    breaker.failed(0)
    assert breaker.allows(most)


# Quarters of seconds are exact in floats.
QUARTERS = st.integers(0, 80).map(lambda n: n / 4)


class AgainstItsLaw(RuleBasedStateMachine):
    """Any run of requests and outcomes, held against what the breaker promises."""

    @initialize(
        failures=st.integers(1, 5),
        rate=st.sampled_from([0.25, 0.5, 1.0]),
        open_for=st.sampled_from([1.0, 5.0]),
        most=st.sampled_from([5.0, 12.0]),
    )
    def begin(self, failures: int, rate: float, open_for: float, most: float) -> None:
        self.options = BreakerOptions(failures, rate, 20.0, open_for, most)
        self.breaker = Breaker(self.options)
        self.now = 0.0
        self.log: list[tuple[float, bool]] = []  # since it closed last
        self.pause = 0.0
        self.trial_at: float | None = None
        self.opened_at = 0.0

    @rule(pause=QUARTERS)
    def wait(self, pause: float) -> None:
        self.now += pause

    @precondition(lambda self: self.breaker.is_closed)
    @rule()
    def succeed(self) -> None:
        self.breaker.succeeded(self.now)
        self.log.append((self.now, True))
        assert self.breaker.is_closed

    @precondition(lambda self: self.breaker.is_closed)
    @rule()
    def fail(self) -> None:
        opened = self.breaker.failed(self.now)
        self.log.append((self.now, False))
        row = self._row()
        # The window is cut somewhere in its oldest tenth.
        verdicts = [self._fails_often(since) for since in (self.now - 20, *self._cuts())]
        if row >= self.options.failures or all(verdicts):
            assert opened
        if opened:
            assert row >= self.options.failures or any(verdicts)
            self.pause = min(self.options.open_for, self.options.open_for_most)
            self._opens()

    @precondition(lambda self: not self.breaker.is_closed)
    @rule(success=st.booleans())
    def hear_of_a_request(self, success: bool) -> None:
        """Of the trial, or of one that was on its way before."""
        if success:
            self.breaker.succeeded(self.now)
            assert self.breaker.is_closed == (self.trial_at is not None)
            if self.trial_at is not None:
                self.trial_at, self.log = None, []
        else:
            assert self.breaker.failed(self.now) == (self.trial_at is not None)
            if self.trial_at is not None:
                self.pause = min(self.pause * 2, self.options.open_for_most)
                self._opens()

    @precondition(lambda self: not self.breaker.is_closed)
    @rule()
    def try_it(self) -> None:
        if not self.breaker.allows(self.now):
            return
        self.breaker.taken(self.now)
        self.trial_at = self.now
        assert not self.breaker.allows(self.now), "one, and no more"

    @invariant()
    def keeps_its_word(self) -> None:
        breaker, now = self.breaker, self.now
        assert breaker.allows(now + self.options.open_for_most), "it never stays open for good"
        if breaker.is_closed:
            assert breaker.state(now) == "closed"
            assert breaker.allows(now)
            return
        since = self.opened_at if self.trial_at is None else self.trial_at
        assert breaker.allows(now) == (now >= since + self.pause)
        trying = self.trial_at is not None or breaker.allows(now)
        assert breaker.state(now) == ("half_open" if trying else "open")

    def _opens(self) -> None:
        assert not self.breaker.is_closed
        self.opened_at, self.trial_at = self.now, None

    def _row(self) -> int:
        row = 0
        while row < len(self.log) and not self.log[-1 - row][1]:
            row += 1
        return row

    def _cuts(self) -> list[float]:
        edge = self.now - 18
        return [at for at, _ in self.log if self.now - 20 <= at < edge] + [edge]

    def _fails_often(self, since: float) -> bool:
        recent = [good for at, good in self.log if at >= since]
        bad = recent.count(False)
        return bad >= self.options.failures and bad >= self.options.failure_rate * len(recent)


TestAgainstItsLaw = AgainstItsLaw.TestCase
TestAgainstItsLaw.settings = settings(max_examples=100, stateful_step_count=50)
