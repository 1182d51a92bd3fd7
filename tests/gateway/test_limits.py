"""Admission and settlement, over memory of one process; what clients are told."""

import gc
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits import UNLIMITED, Lease, Used
from dev_opsgpt.gateway.limits.shared import LocalLimits
from dev_opsgpt.protocol import errors
from dev_opsgpt.protocol.errors import (
    QuotaExceeded,
    RateLimited,
    RequestsLimited,
    TokensLimited,
    openai_body,
)


class Clock:
    """A clock for both times that goes on when told."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def local(clock: Clock) -> LocalLimits:
    return LocalLimits(clock=clock, wall=clock)


def key(**limits: Any) -> Key:
    return Key("key_1", 1, **limits)


def headers(lease: Lease) -> dict[str, str]:
    lines = lease.header_lines().decode().split("\r\n")
    assert lines.pop() == ""
    return dict(line.split(": ") for line in lines)


async def test_without_limits_nothing_is_counted() -> None:
    limits = local(Clock())
    lease = await limits.admit(key(), 100)
    assert lease is UNLIMITED
    assert lease.header_lines() == b""
    limits.settle(lease, 5, 1.0)
    assert await limits.used(key()) == Used()


async def test_requests_per_minute() -> None:
    clock = Clock()
    limits = local(clock)
    for left in (2, 1, 0):
        lease = await limits.admit(key(rpm=3), 1)
        assert headers(lease) == {
            "x-ratelimit-limit-requests": "3",
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": "1m0s",
        }
        limits.settle(lease, 1, 0.0)
    clock.now += 20.5
    with pytest.raises(RequestsLimited) as caught:
        await limits.admit(key(rpm=3), 1)
    error = caught.value
    assert openai_body(error)["error"] == {
        "message": "Rate limit reached for this key on requests per min (RPM): Limit 3, Used 3, "
        "Requested 1. Please try again in 39.5s.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert errors.headers(error) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "39.5s",
        "retry-after-ms": "39500",
        "retry-after": "40",
    }
    clock.now += 39.5
    await limits.admit(key(rpm=3), 1)


async def test_tokens_per_minute_are_reserved_and_corrected() -> None:
    clock = Clock()
    limits = local(clock)
    first = await limits.admit(key(tpm=100), 80)
    assert headers(first) == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "20",
        "x-ratelimit-reset-tokens": "1m0s",
    }
    with pytest.raises(TokensLimited, match=r"Limit 100, Used 80, Requested 30\. .* in 1m0s"):
        await limits.admit(key(tpm=100), 30)
    clock.now += 7
    limits.settle(first, 50, 0.0)
    second = await limits.admit(key(tpm=100), 30)
    assert second.tokens_left == 20
    limits.settle(second, None, 0.0)
    assert (await limits.used(key(tpm=100))).tokens == 80
    with pytest.raises(TokensLimited) as caught:
        await limits.admit(key(tpm=100), 60)
    # It is enough that the first one leaves.
    assert caught.value.retry_after == pytest.approx(53)
    assert openai_body(caught.value)["error"]["type"] == "tokens"


async def test_a_request_that_is_too_large_alone_is_told_so() -> None:
    limits = local(Clock())
    with pytest.raises(TokensLimited, match="Request too large") as caught:
        await limits.admit(key(tpm=100, rpm=5), 101)
    assert "retry-after" not in errors.headers(caught.value)
    assert caught.value.code == "rate_limit_exceeded"
    assert await limits.used(key(tpm=100, rpm=5)) == Used()


async def test_answers_that_were_longer_than_expected_count_in_full() -> None:
    limits = local(Clock())
    lease = await limits.admit(key(tpm=100), 10)
    limits.settle(lease, 250, 0.0)
    with pytest.raises(TokensLimited) as caught:
        await limits.admit(key(tpm=100), 1)
    assert errors.headers(caught.value)["x-ratelimit-remaining-tokens"] == "0"


async def test_requests_at_once() -> None:
    limits = local(Clock())
    leases = [await limits.admit(key(concurrent=2), 1) for _ in range(2)]
    with pytest.raises(RequestsLimited, match="concurrent requests: Limit 2") as caught:
        await limits.admit(key(concurrent=2), 1)
    assert errors.headers(caught.value)["retry-after"] == "1"
    for _ in range(3):
        limits.settle(leases[0], 1, 0.0)
    assert (await limits.used(key(concurrent=2))).concurrent == 1
    leases.append(await limits.admit(key(concurrent=2), 1))
    with pytest.raises(RequestsLimited):
        await limits.admit(key(concurrent=2), 1)


async def test_a_dropped_lease_locks_nobody_out() -> None:
    limits = local(Clock())
    lease = await limits.admit(key(concurrent=1, tpm=10), 5)
    del lease
    gc.collect()
    lease = await limits.admit(key(concurrent=1, tpm=10), 5)
    # What it reserved stands: nobody knows how much it used.
    assert lease.tokens_left == 0


async def test_a_limit_that_comes_while_a_request_runs_counts_from_then_on() -> None:
    limits = local(Clock())
    before = await limits.admit(key(rpm=5), 10)
    during = await limits.admit(key(rpm=5, concurrent=1, tpm=50), 10)
    limits.settle(before, 90, 0.0)
    assert await limits.used(key(concurrent=1)) == Used(2, 10, 1)
    limits.settle(during, 20, 0.0)
    assert await limits.used(key(concurrent=1)) == Used(2, 20, 0)


async def test_budget_of_a_day() -> None:
    clock = Clock(datetime(2028, 2, 29, 23, 59, tzinfo=UTC).timestamp())
    limits = local(clock)
    daily = key(budget=1.0, budget_period="day", rpm=9)
    lease = await limits.admit(daily, 1)
    limits.settle(lease, 1, 0.75)
    lease = await limits.admit(daily, 1)
    limits.settle(lease, 1, 0.25)
    with pytest.raises(QuotaExceeded) as caught:
        await limits.admit(daily, 1)
    error = caught.value
    assert openai_body(error)["error"] == {
        "message": "This key's budget for this day (UTC) is spent: 1. It is renewed in 1m0s.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
    assert errors.headers(error)["retry-after"] == "60"
    assert errors.headers(error)["x-ratelimit-remaining-requests"] == "7"
    clock.now += 60
    limits.settle(await limits.admit(daily, 1), 1, 0.5)
    assert (await limits.used(daily)).spent == 0.5


async def test_budget_for_ever() -> None:
    limits = local(Clock())
    limits.settle(await limits.admit(key(budget=0.5), 1), 1, 0.5)
    with pytest.raises(QuotaExceeded) as caught:
        await limits.admit(key(budget=0.5), 1)
    assert errors.headers(caught.value) == {}
    await limits.admit(key(budget=0.6), 1)


async def test_the_database_s_word_counts_where_it_is_higher() -> None:
    clock = Clock(datetime(2028, 2, 29, tzinfo=UTC).timestamp())
    limits = local(clock)
    daily = key(budget=1.0, budget_period="day")
    await limits.spent(daily, clock.now, 0.5)
    await limits.spent(daily, clock.now, 0.25)
    await limits.spent(daily, clock.now - 1, 0.75)
    assert (await limits.used(daily)).spent == 0.5
    await limits.spent(daily, clock.now, 1.5)
    with pytest.raises(QuotaExceeded):
        await limits.admit(daily, 1)


LIMIT = st.none() | st.integers(1, 20)


@given(
    rpm=LIMIT,
    tpm=LIMIT,
    concurrent=LIMIT,
    budget=st.none() | st.floats(0.5, 5),
    steps=st.lists(
        st.tuples(st.floats(0, 15), st.integers(0, 25), st.integers(0, 25), st.booleans()),
        max_size=40,
    ),
)
async def test_refused_exactly_when_a_limit_would_be_passed(
    rpm: int | None,
    tpm: int | None,
    concurrent: int | None,
    budget: float | None,
    steps: list[tuple[float, int, int, bool]],
) -> None:
    """Against a plain model that remembers every request: refused only for a reason, and a
    refusal takes nothing."""
    clock = Clock()
    limits = local(clock)
    holder = key(rpm=rpm, tpm=tpm, concurrent=concurrent, budget=budget)
    running: list[tuple[Lease, list[float]]] = []
    requests: list[float] = []
    counted: list[list[float]] = []  # time and tokens
    spent = 0.0

    def recent(time: float) -> bool:
        return int(time * 10) > int(clock.now * 10) - 600

    for pause, tokens, used, settles in steps:
        clock.now += pause
        total = sum(amount for time, amount in counted if recent(time))
        free = (
            (rpm is None or sum(map(recent, requests)) < rpm)
            and (tpm is None or total + tokens <= tpm)
            and (concurrent is None or len(running) < concurrent)
            and (budget is None or spent < budget)
        )
        try:
            lease = await limits.admit(holder, tokens)
            assert free
            requests.append(clock.now)
            counted.append([clock.now, tokens])
            running.append((lease, counted[-1]))
        except RateLimited:
            assert not free
        if running and settles:
            lease, entry = running.pop(0)
            limits.settle(lease, used, 0.25)
            spent += 0.25
            if recent(entry[0]):
                entry[1] = used
            elif used > lease.tokens:
                counted.append([clock.now, used - lease.tokens])
    if concurrent is not None:
        assert (await limits.used(holder)).concurrent == len(running)
