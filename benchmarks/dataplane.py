"""The three scenarios, each contender measured in turn, round by round, in the same minutes."""

import statistics
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks import mock, upstream
from benchmarks.contender import Contender, Factory
from benchmarks.load import Load, LoadFailed, long_streams, request_body, short_requests
from benchmarks.processes import cpu_seconds

WARM_UP = 1


class Scenario(msgspec.Struct, frozen=True):
    """One kind of load. ``upstream`` is the mock's kind, ``concurrent`` the requests in flight."""

    name: str
    title: str
    upstream: str
    stream: bool
    concurrent: int

    def load(self, contender: Contender, seconds: int) -> Load:
        """Puts the load on. Raises ``LoadFailed``."""
        url = f"{contender.url}/chat/completions"
        if self.upstream == "paced":
            return long_streams(url, contender.headers, concurrent=self.concurrent, seconds=seconds)
        return short_requests(
            url,
            contender.headers,
            stream=self.stream,
            connections=self.concurrent,
            seconds=seconds,
        )


SCENARIOS = (
    Scenario("A", "one 550-byte answer, 32 connections", "plain", False, 32),
    Scenario("B", "a stream of 200 chunks sent at once, 32 connections", "burst", True, 32),
    Scenario("C", "a stream of 50 chunks, one every 20 ms, 200 at a time", "paced", True, 200),
)


class Figures(msgspec.Struct, frozen=True):
    """One contender in one scenario, the median of the rounds: ``cpu`` is milliseconds of its
    processes' time for a request, ``p50`` and ``p99`` milliseconds that a caller waited for the
    whole answer, ``rate`` requests a second. ``failed`` is the sum."""

    cpu: float
    rate: float
    p50: float
    p99: float
    requests: int
    failed: int


def measure(
    scenario: Scenario,
    factories: Mapping[str, Factory],
    folder: Path,
    *,
    rounds: int,
    seconds: int,
    say: Callable[[str], None],
) -> dict[str, Figures]:
    """All contenders under one scenario. They are up together and measured in turn, so that what
    else the machine does hits all alike. Raises ``StartFailed``, ``LoadFailed``."""
    with ExitStack() as stack:
        base = folder / scenario.name
        base.mkdir(parents=True)
        server = upstream.Upstream(scenario.upstream, base)
        stack.callback(server.stop)
        server.wait()
        contenders: dict[str, Contender] = {}
        for name, make in factories.items():
            own = base / name
            own.mkdir()
            contenders[name] = contender = make()
            stack.callback(contender.stop)
            contender.start(server.url, own)
            check(contender, scenario)
        found: dict[str, list[Figures]] = {name: [] for name in contenders}
        for number in range(rounds):
            for name, contender in contenders.items():
                say(f"{scenario.name}, round {number + 1} of {rounds}: {contender.name}")
                found[name].append(_one(contender, scenario, seconds))
    return {name: median(figures) for name, figures in found.items()}


def _one(contender: Contender, scenario: Scenario, seconds: int) -> Figures:
    scenario.load(contender, WARM_UP)
    before = cpu_seconds(contender.pids())
    load = scenario.load(contender, seconds)
    spent = cpu_seconds(contender.pids()) - before
    return Figures(
        cpu=spent * 1000 / load.requests,
        rate=load.requests / load.seconds,
        p50=load.p50,
        p99=load.p99,
        requests=load.requests,
        failed=load.failed,
    )


def median(rounds: list[Figures]) -> Figures:
    """The median of each figure; counts are added up."""
    return Figures(
        cpu=statistics.median(one.cpu for one in rounds),
        rate=statistics.median(one.rate for one in rounds),
        p50=statistics.median(one.p50 for one in rounds),
        p99=statistics.median(one.p99 for one in rounds),
        requests=sum(one.requests for one in rounds),
        failed=sum(one.failed for one in rounds),
    )


def check(contender: Contender, scenario: Scenario) -> None:
    """One request by a client that is not ours: a fast router that loses answers shall not win.
    Raises ``LoadFailed``."""
    request = urllib.request.Request(
        f"{contender.url}/chat/completions",
        data=request_body(stream=scenario.stream),
        headers={"content-type": "application/json", **contender.headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            body = reply.read()
    except OSError as error:
        raise LoadFailed(f"{contender.name} does not answer: {error}") from None
    if body != expected(scenario):
        raise LoadFailed(f"{contender.name} does not pass the upstream's answer on as it is.")


def expected(scenario: Scenario) -> bytes:
    """The body that the upstream of a scenario sends."""
    if scenario.upstream == "plain":
        return upstream.answer()
    count = mock.PACED_CHUNKS if scenario.upstream == "paced" else mock.BURST_CHUNKS
    return b"".join(mock.events(count))
