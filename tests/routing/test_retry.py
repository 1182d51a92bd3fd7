from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dev_opsgpt.routing.retry import FIRST_PAUSE, LONGEST_PAUSE, WINDOW, RetryBudget, backoff


@given(attempt=st.integers(1, 1000), seed=st.integers())
def test_a_pause_is_anything_up_to_its_ceiling(attempt: int, seed: int) -> None:
    pause = backoff(attempt, Random(seed))
    assert 0 <= pause <= min(LONGEST_PAUSE, FIRST_PAUSE * 4.0 ** min(attempt, 9) / 4)


def test_the_pauses_use_their_whole_range() -> None:
    rng = Random(1)
    for attempt, ceiling in ((1, 0.02), (2, 0.08), (3, 0.32), (4, 0.5), (40, 0.5)):
        pauses = [backoff(attempt, rng) for _ in range(500)]
        assert min(pauses) < 0.05 * ceiling
        assert max(pauses) > 0.95 * ceiling


def test_a_share_of_the_requests() -> None:
    budget = RetryBudget(0.2, floor_per_second=0)
    assert not budget.spend(0)
    for _ in range(10):
        budget.request(0)
    assert [budget.spend(1) for _ in range(4)] == [True, True, False, False]
    assert not budget.allows(1)
    for _ in range(5):
        budget.request(2)
    assert budget.allows(2)
    assert budget.allows(2), "asking costs nothing"
    assert budget.spend(2)
    assert not budget.spend(2)


def test_requests_of_long_ago_earn_nothing() -> None:
    budget = RetryBudget(0.5, floor_per_second=0)
    for _ in range(100):
        budget.request(0)
    assert budget.allows(8.9)
    assert not budget.allows(10)


def test_some_are_always_allowed() -> None:
    budget = RetryBudget(0.0)
    assert sum(budget.spend(5) for _ in range(50)) == 10
    assert not budget.spend(5.05)
    assert budget.spend(5.15)
    assert all(budget.spend(6 + n / 10) for n in range(1000)), "ten a second, for ever"


def test_the_floor_is_no_extra_to_the_share() -> None:
    budget = RetryBudget(0.5, floor_per_second=10)
    for _ in range(100):
        budget.request(0)
    assert sum(budget.spend(0) for _ in range(100)) == 50


def test_a_slow_floor_still_lets_one_through() -> None:
    budget = RetryBudget(0.0, floor_per_second=0.25)
    spent = [now for now in (0, 1, 3, 4, 5, 8) if budget.spend(now)]
    assert spent == [0, 4, 8]


def test_no_budget_is_none() -> None:
    budget = RetryBudget(0.0, floor_per_second=0)
    budget.request(0)
    assert not any(budget.spend(now) for now in range(100))


class NeverExceeded(RuleBasedStateMachine):
    """Any traffic: never more retries than the share or the floor gives, and the floor always."""

    @initialize(
        share=st.sampled_from([0.0, 0.125, 0.5, 1.0]), floor=st.sampled_from([0.0, 1.0, 8.0])
    )
    def begin(self, share: float, floor: float) -> None:
        self.share, self.floor = share, floor
        self.budget = RetryBudget(share, floor)
        self.now = 0.0
        self.requests: list[float] = []
        self.retries: list[float] = []

    @rule(eighths=st.integers(0, 40))
    def wait(self, eighths: int) -> None:
        self.now += eighths / 8

    @rule(count=st.integers(1, 20))
    def request(self, count: int) -> None:
        for _ in range(count):
            self.budget.request(self.now)
            self.requests.append(self.now)

    @rule(count=st.integers(1, 20))
    def retry(self, count: int) -> None:
        for _ in range(count):
            allowed = self.budget.allows(self.now)
            assert self.budget.spend(self.now) == allowed
            if not allowed:
                assert self._since(self.retries, 1.0) >= self.floor, "ten a second, always"
                assert self._earned(0.9 * WINDOW) < self._since(self.retries, WINDOW) + 1
                return
            self.retries.append(self.now)

    @invariant()
    def holds(self) -> None:
        """Retries within a window: by the share of its requests, and by the floor of its time."""
        bound = max(self._earned(2 * WINDOW), 0) + self.floor * (WINDOW + 1)
        assert self._since(self.retries, WINDOW) <= bound
        if not self.floor:
            assert len(self.retries) <= self.share * len(self.requests)
        if not self.share:
            assert len(self.retries) <= self.floor * (1 + self.now)

    def _since(self, times: list[float], seconds: float) -> int:
        return sum(self.now - at <= seconds for at in times)

    def _earned(self, seconds: float) -> float:
        return self.share * sum(self.now - at < seconds for at in self.requests)


TestNeverExceeded = NeverExceeded.TestCase
TestNeverExceeded.settings = settings(max_examples=100, stateful_step_count=40)
