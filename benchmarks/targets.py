"""What our gateway with everything on is meant to cost, and whether it did in a run."""

from collections.abc import Mapping

import msgspec

from benchmarks.contenders import LITELLM, NGINX, OURS, RUST
from benchmarks.dataplane import Figures


class Target(msgspec.Struct, frozen=True):
    """CPU time of a request in ``scenario``, at most ``ratio`` times that of a rival: "nginx",
    "rust" (the best of those) or "litellm"."""

    scenario: str
    rival: str
    ratio: float


TARGETS = (
    Target("A", "rust", 0.7),
    Target("B", "rust", 0.3),
    Target("C", "rust", 1.0),
    Target("A", "nginx", 4.0),
    Target("B", "nginx", 2.0),
    Target("C", "nginx", 2.0),
    Target("A", "litellm", 0.01),
    Target("B", "litellm", 0.01),
    Target("C", "litellm", 0.01),
)


def rivals(figures: Mapping[str, Figures]) -> dict[str, float]:
    """The CPU time of each rival in a scenario, of those that were measured."""
    cpu = {name: one.cpu for name, one in figures.items() if one.cpu > 0}
    found = {}
    if NGINX in cpu:
        found["nginx"] = cpu[NGINX]
    if rust := [spent for name, spent in cpu.items() if name in RUST]:
        found["rust"] = min(rust)
    if LITELLM in cpu:
        found["litellm"] = cpu[LITELLM]
    return found


def reached(target: Target, scenarios: Mapping[str, Mapping[str, Figures]]) -> float | None:
    """The ratio of a run, where both were measured."""
    figures = scenarios.get(target.scenario, {})
    rival = rivals(figures).get(target.rival)
    if rival is None or OURS not in figures:
        return None
    return figures[OURS].cpu / rival
