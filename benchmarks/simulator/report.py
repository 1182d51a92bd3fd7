"""A run of the simulator as tables and as JSON."""

from pathlib import Path

import msgspec

from benchmarks.report import markdown
from benchmarks.simulator.figures import Figures
from benchmarks.simulator.scenario import Scenario

HEAD = [
    "",
    "cached",
    "p50 ms",
    "p99 ms",
    "max/mean",
    "variation",
    "requests/s",
]


class Run(msgspec.Struct, frozen=True):
    """One scenario under all policies. ``repeated`` is the share of prompt tokens that had been
    said before: no cache can have more."""

    scenario: Scenario
    repeated: float
    policies: dict[str, Figures]


def table(run: Run) -> str:
    """One scenario's table."""
    rows = [
        [
            name,
            f"{one.hit_rate:.1%}",
            f"{one.p50:,.0f}",
            f"{one.p99:,.0f}",
            f"{one.peak:.2f}",
            f"{one.variation:.2f}",
            f"{one.throughput:,.1f}",
        ]
        for name, one in run.policies.items()
    ]
    said = f"{run.repeated:.0%} of the prompts' tokens had been said before"
    title = f"{run.scenario.name}: {run.scenario.title}; {said}"
    return f"{title}\n\n{markdown(HEAD, rows)}"


def write(runs: list[Run], path: Path) -> None:
    """Writes the figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")
