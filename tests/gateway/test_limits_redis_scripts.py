"""What Redis counts is what this process's own windows count, whatever happens: its scripts are run
by a clock of the test's."""

from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits import Lease, LocalLimits, Used
from dev_opsgpt.gateway.limits import redis_scripts as scripts
from dev_opsgpt.protocol.errors import RateLimited, RequestsLimited, TokensLimited
from tests.storage.servers import redis as redis_server

T = TypeVar("T")
NAMES = ["r", "r:order", "t", "t:order", "in_flight", "spent"]
LIMIT = st.none() | st.integers(1, 20)
# Tenths of a second: a few, and more than a window.
PAUSE = st.integers(0, 150) | st.sampled_from([1, 599, 600, 601, 3000])


@pytest.fixture(scope="module")
def client() -> Iterator["redis.Redis"]:
    with redis_server() as server, redis.Redis.from_url(server.url) as found:
        yield found


def now(value: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine that never suspends."""
    try:
        value.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    raise AssertionError("it suspends")


class Pair:
    """The same limits twice, by one clock in milliseconds."""

    def __init__(self, client: "redis.Redis", key: Key) -> None:
        client.flushdb()
        # Well after the start of all windows, and never at the edge of a bucket.
        self.milliseconds = 1_000_050
        self.key = key
        self.client = client
        self.local = LocalLimits(clock=self.clock, wall=self.clock)
        self.count = 0

    def clock(self) -> float:
        return self.milliseconds / 1000

    def run(self, script: str, names: list[str], *arguments: Any) -> Any:
        seconds, rest = divmod(self.milliseconds, 1000)
        timed = script.replace("redis.call('TIME')", f"{{{seconds}, {rest * 1000}}}")
        assert timed != script
        return self.client.eval(timed, len(names), *names, *arguments)

    def admit(self, tokens: int) -> tuple[Lease, str, int] | None:
        """Lets a request in on both sides, or on neither, for the same reason."""
        key = self.key
        limits = [key.rpm, key.tpm, key.concurrent, key.budget]
        texts = ["" if limit is None else limit for limit in limits]
        name = f"lease {self.count}"
        self.count += 1
        # Longer than any example: those in flight are told of by no heartbeat here.
        found = self.run(scripts.ADMIT, NAMES, *texts, tokens, name, 10**9)
        try:
            lease = now(self.local.admit(key, tokens))
        except RateLimited as error:
            assert found[0] == 0
            waits = [wait / 1000 for wait in found[4:]]
            if isinstance(error, RequestsLimited) and "RPM" in error.message:
                assert error.retry_after == pytest.approx(waits[1])
            if isinstance(error, TokensLimited) and error.retry_after is not None:
                assert error.retry_after == pytest.approx(waits[3])
            return None
        assert found[0] == 1
        left = [(limit or 0) - used for limit, used in zip(limits[:2], found[1:3], strict=True)]
        if key.rpm is not None:
            assert left[0] == lease.requests_left
        if key.tpm is not None:
            assert left[1] == lease.tokens_left
        return lease, name, found[3]

    def settle(self, admitted: tuple[Lease, str, int], used: int, cost: float) -> None:
        lease, name, bucket = admitted
        self.local.settle(lease, used, cost)
        change = used - lease.tokens if self.key.tpm is not None else 0
        spent = cost if self.key.budget is not None else 0.0
        self.run(scripts.SETTLE, NAMES[2:], name, bucket, change, spent, 0)

    def check(self) -> None:
        requests, tokens, concurrent, spent = self.run(scripts.USED, NAMES)
        assert now(self.local.used(self.key)) == Used(requests, tokens, concurrent, float(spent))


@given(
    rpm=LIMIT,
    tpm=LIMIT,
    concurrent=LIMIT,
    budget=st.none() | st.integers(1, 4).map(float),
    steps=st.lists(
        st.tuples(PAUSE, st.integers(0, 25), st.integers(0, 25), st.booleans()), max_size=25
    ),
)
def test_the_same_as_in_memory(
    client: "redis.Redis",
    rpm: int | None,
    tpm: int | None,
    concurrent: int | None,
    budget: float | None,
    steps: list[tuple[int, int, int, bool]],
) -> None:
    key = Key("key_1", 1, rpm=rpm, tpm=tpm, concurrent=concurrent, budget=budget)
    if not key.limited:
        return
    pair = Pair(client, key)
    running: list[tuple[Lease, str, int]] = []
    for pause, tokens, used, settles in steps:
        pair.milliseconds += pause * 100
        admitted = pair.admit(tokens)
        if admitted is not None:
            running.append(admitted)
        if running and settles:
            pair.settle(running.pop(0), used, 0.25)
        pair.check()


def test_a_clock_that_is_set_back_locks_nobody_out(client: "redis.Redis") -> None:
    """An hour ahead for a while, as before a machine has heard of the right time."""
    pair = Pair(client, Key("key_1", 1, rpm=2, tpm=100, concurrent=2))
    right = pair.milliseconds
    pair.milliseconds += 3_600_000
    for _ in range(2):
        # Their gateway is dead: nobody will tell that they are over.
        limits = (2, 100, 2, "", 50, f"lost {pair.clock()}", 30_000)
        assert pair.run(scripts.ADMIT, NAMES, *limits)[0] == 1
        pair.milliseconds += 1000
    assert pair.run(scripts.ADMIT, NAMES, 2, 100, 2, "", 0, "one more", 30_000)[0] == 0
    pair.milliseconds = right
    for name in ("first", "second"):
        assert pair.run(scripts.ADMIT, NAMES, 2, 100, 2, "", 50, name, 30_000)[0] == 1
    assert pair.run(scripts.USED, NAMES)[:3] == [2, 100, 2]
    assert pair.run(scripts.ADMIT, NAMES, 2, 100, 2, "", 0, "third", 30_000)[0] == 0
