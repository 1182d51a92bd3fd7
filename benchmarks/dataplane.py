"""The three scenarios, each contender measured in turn, round by round, in the same minutes."""

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks import callers, load
from benchmarks.check import check
from benchmarks.contender import Contender, Factory, Kind, Target
from benchmarks.load import Load, LoadFailed
from benchmarks.processes import StartFailed, cpu_seconds
from benchmarks.upstream import Upstream

WARM_UP = 1
FEW = 8
"""Callers that are enough to warm up one for whom every request is much work."""
ALONE = 1.0
"""Seconds in which one caller alone asks for first tokens."""
TOKENS: Mapping[Kind, bytes] = {
    "plain": b"a model's words",
    "burst": b"word000",
    "paced": b"word000",
    "slow": b"word000",
}


class Scenario(msgspec.Struct, frozen=True):
    """One kind of load. ``kind`` is the upstream's, ``concurrent`` the requests in flight."""

    name: str
    title: str
    kind: Kind
    concurrent: int

    @property
    def stream(self) -> bool:
        """Whether streams are asked for."""
        return self.kind != "plain"

    def load(self, contender: Contender, seconds: int) -> Load:
        """Puts the load on: wrk's, or of callers that read all to the end. Raises
        ``LoadFailed``."""
        if contender.heavy or self.kind == "paced":
            return callers.call(self.plan(contender, self.concurrent, seconds))
        return load.short_requests(
            f"{contender.url}/chat/completions",
            contender.headers,
            stream=self.stream,
            connections=self.concurrent,
            seconds=seconds,
        )

    def plan(self, contender: Contender, concurrent: int, seconds: float) -> callers.Plan:
        """What our own callers do."""
        return callers.Plan(
            url=f"{contender.url}/chat/completions",
            headers=contender.headers,
            body=load.request_body(stream=self.stream),
            token=TOKENS[self.kind],
            concurrent=concurrent,
            seconds=seconds,
        )


SCENARIOS = (
    Scenario("A", "one 550-byte answer, 32 connections", "plain", 32),
    Scenario("B", "a stream of 200 chunks sent at once, 32 connections", "burst", 32),
    Scenario("C", "a stream of 50 chunks, one every 20 ms, 200 at a time", "paced", 200),
)


class Figures(msgspec.Struct, frozen=True):
    """One contender in one scenario, the median of the rounds: ``cpu`` is milliseconds of its
    processes' time for a request, ``rate`` requests a second, ``p50`` and ``p99`` milliseconds
    that a caller waited for the whole answer, ``first`` the median of those until its first
    token. ``failed`` is the sum."""

    cpu: float
    rate: float
    p50: float
    p99: float
    first: float
    requests: int
    failed: int


class Turns:
    """The contenders of one scenario, which take turns. One that does not start or does not hold
    is left out, and ``left_out`` says why. ``idle`` is the CPU time that all those whose turn it
    was not used meanwhile, in per cent of a core, at worst."""

    def __init__(self, scenario: Scenario, folder: Path, say: Callable[[str], None]) -> None:
        self.left_out: dict[str, str] = {}
        self.found: dict[str, list[Figures]] = {}
        self.idle = 0.0
        self._scenario = scenario
        self._folder = folder
        self._say = say
        self._up: dict[str, Contender] = {}

    def start(self, name: str, contender: Contender, upstream: Target) -> None:
        """Starts one and sees whether it passes answers on."""
        self._say(f"{self._scenario.name}: starting {contender.name}")
        own = self._folder / name
        own.mkdir()
        try:
            contender.start(upstream, own)
            check(contender, self._scenario.kind)
        except (StartFailed, LoadFailed) as error:
            self._leave_out(name, error)
        else:
            self._up[name] = contender
            self.found[name] = []

    def round(self, title: str, seconds: int) -> None:
        """One turn of each."""
        for name, contender in list(self._up.items()):
            self._say(f"{self._scenario.name}, {title}: {contender.name}")
            others = [pid for other in self._up if other != name for pid in self._up[other].pids()]
            started, spent = time.perf_counter(), cpu_seconds(others)
            try:
                self.found[name].append(_one(contender, self._scenario, seconds))
            except LoadFailed as error:
                self._leave_out(name, error)
            else:
                share = (cpu_seconds(others) - spent) / (time.perf_counter() - started)
                self.idle = max(self.idle, 100 * share)

    def figures(self) -> dict[str, Figures]:
        """The medians of those that held."""
        return {name: median(rounds) for name, rounds in self.found.items()}

    def _leave_out(self, name: str, error: Exception) -> None:
        self._up.pop(name, None)
        self.found.pop(name, None)
        self.left_out[name] = str(error)
        self._say(f"{self._scenario.name}: {name} is left out: {error}")


def measure(
    scenario: Scenario,
    factories: Mapping[str, Factory],
    folder: Path,
    *,
    rounds: int,
    seconds: int,
    say: Callable[[str], None],
) -> Turns:
    """All contenders under one scenario. They are up together and measured in turn, so that what
    else the machine does hits all alike. Raises ``StartFailed`` for the upstream."""
    base = folder / scenario.name
    base.mkdir(parents=True)
    turns = Turns(scenario, base, say)
    with ExitStack() as stack:
        server = Upstream(scenario.kind, base)
        stack.callback(server.stop)
        server.wait()
        for name, make in factories.items():
            contender = make()
            stack.callback(contender.stop)
            turns.start(name, contender, server.target)
        for number in range(rounds):
            turns.round(f"round {number + 1} of {rounds}", seconds)
    return turns


def _one(contender: Contender, scenario: Scenario, seconds: int) -> Figures:
    _warm_up(contender, scenario)
    before = cpu_seconds(contender.pids())
    seen = scenario.load(contender, seconds)
    spent = cpu_seconds(contender.pids()) - before
    # Where every core is busy a first token waits its turn; what a router adds shows without.
    alone = seen if scenario.kind == "paced" else callers.call(scenario.plan(contender, 1, ALONE))
    return Figures(
        cpu=spent * 1000 / seen.requests,
        rate=seen.requests / seen.seconds,
        p50=seen.p50,
        p99=seen.p99,
        first=alone.first,
        requests=seen.requests,
        failed=seen.failed,
    )


def _warm_up(contender: Contender, scenario: Scenario) -> None:
    if contender.heavy:
        callers.call(scenario.plan(contender, FEW, WARM_UP))
    else:
        scenario.load(contender, WARM_UP)


def median(rounds: list[Figures]) -> Figures:
    """The median of each figure; counts are added up."""
    return Figures(
        cpu=statistics.median(one.cpu for one in rounds),
        rate=statistics.median(one.rate for one in rounds),
        p50=statistics.median(one.p50 for one in rounds),
        p99=statistics.median(one.p99 for one in rounds),
        first=statistics.median(one.first for one in rounds),
        requests=sum(one.requests for one in rounds),
        failed=sum(one.failed for one in rounds),
    )
