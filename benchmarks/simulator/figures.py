"""What is counted in a simulation, and the figures that come of it."""

from collections.abc import Sequence
from statistics import fmean, pstdev

import msgspec

from benchmarks.simulator.engine import Job
from benchmarks.simulator.scenario import Scenario


class Figures(msgspec.Struct, frozen=True):
    """How one policy did. ``hit_rate`` is the share of prompt tokens that were cached; ``p50`` and
    ``p99`` are milliseconds to the first token; ``peak`` is the busiest replica's load in mean
    loads, ``variation`` the loads' coefficient of variation, both means over the time;
    ``throughput`` is requests finished a second."""

    requests: int
    hit_rate: float
    p50: float
    p99: float
    peak: float
    variation: float
    throughput: float


class Counts:
    """Counts what arrives between a scenario's warm-up and its end. ``open`` is how many of those
    requests have no first token yet."""

    def __init__(self, scenario: Scenario) -> None:
        self._from, self._to = scenario.warm_up, scenario.seconds
        self._prompts = self._cached = self._repeated = self._done = 0
        self._waits: list[float] = []
        self._looks: list[tuple[float, float]] = []
        self.open = 0

    def arrived(self, job: Job, repeated: int) -> None:
        """A request came in, of whose tokens so many were said before."""
        if self._counted(job):
            self.open += 1
            self._repeated += repeated

    def first(self, job: Job, now: float) -> None:
        """A request got its first token."""
        if self._counted(job):
            self.open -= 1
            self._prompts += job.prompt
            self._cached += job.cached
            self._waits.append(now - job.arrived)

    def done(self, job: Job, now: float) -> None:
        """A request is over."""
        self._done += self._from <= now < self._to

    def look(self, loads: Sequence[int], speeds: Sequence[float]) -> None:
        """Takes down the loads at one time, each beside its replica's speed."""
        shares = [load / speeds[n % len(speeds)] for n, load in enumerate(loads)]
        mean = fmean(shares)
        if mean:
            self._looks.append((max(shares) / mean, pstdev(shares, mean) / mean))

    @property
    def repeated(self) -> float:
        """The share of prompt tokens that had been said before: no cache can have more."""
        return self._repeated / (self._prompts or 1)

    def figures(self) -> Figures:
        """The figures of the whole time."""
        waits = sorted(self._waits)
        peaks, variations = zip(*self._looks or [(0.0, 0.0)], strict=True)
        return Figures(
            requests=len(waits),
            hit_rate=self._cached / (self._prompts or 1),
            p50=_percentile(waits, 0.5) * 1000,
            p99=_percentile(waits, 0.99) * 1000,
            peak=fmean(peaks),
            variation=fmean(variations),
            throughput=self._done / (self._to - self._from),
        )

    def _counted(self, job: Job) -> bool:
        return self._from <= job.arrived < self._to


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
