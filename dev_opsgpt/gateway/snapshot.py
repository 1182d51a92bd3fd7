"""The figures of one gateway process at one time, and how those of several become one. Pure."""

import hashlib
from collections.abc import Iterable

import msgspec

from dev_opsgpt.gateway.metric_names import FAMILIES

Labels = tuple[str, ...]
# Figures that were counted under other names, labels or bounds are not to be added to ours.
LAYOUT = hashlib.sha256(repr(sorted(FAMILIES.values())).encode()).hexdigest()[:16]


class Counts(msgspec.Struct):
    """A histogram's state; see ``Histogram``."""

    counts: list[int]
    total: float


class Snapshot(msgspec.Struct):
    """All figures, by their exported name and by the values of its labels.

    ``at`` is Unix time in seconds. ``process`` holds the figures of the processes themselves, by
    the process's number and the exported name.
    """

    at: float = 0.0
    layout: str = LAYOUT
    counters: dict[str, dict[Labels, float]] = msgspec.field(default_factory=dict)
    histograms: dict[str, dict[Labels, Counts]] = msgspec.field(default_factory=dict)
    gauges: dict[str, dict[Labels, float]] = msgspec.field(default_factory=dict)
    process: dict[str, dict[str, float]] = msgspec.field(default_factory=dict)


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The figures of them all: counters and histograms summed, gauges as their family says. It
    shares nothing with what it is made from, and the order makes no difference."""
    merged = Snapshot()
    for snapshot in snapshots:
        merged.at = max(merged.at, snapshot.at)
        for name, series in snapshot.counters.items():
            _add(merged.counters.setdefault(name, {}), series)
        for name, series in snapshot.gauges.items():
            into = merged.gauges.setdefault(name, {})
            (_add if FAMILIES[name].merge == "sum" else _raise)(into, series)
        for name, histograms in snapshot.histograms.items():
            _add_counts(merged.histograms.setdefault(name, {}), histograms)
        for number, figures in snapshot.process.items():
            merged.process.setdefault(number, {}).update(figures)
    return merged


def lasting(snapshot: Snapshot) -> Snapshot:
    """What is left of a process that is gone: what it had counted, and none of what it saw."""
    return Snapshot(snapshot.at, snapshot.layout, snapshot.counters, snapshot.histograms)


def _add(into: dict[Labels, float], series: dict[Labels, float]) -> None:
    for labels, value in series.items():
        into[labels] = into.get(labels, 0.0) + value


def _raise(into: dict[Labels, float], series: dict[Labels, float]) -> None:
    for labels, value in series.items():
        into[labels] = max(into.get(labels, value), value)


def _add_counts(into: dict[Labels, Counts], series: dict[Labels, Counts]) -> None:
    for labels, found in series.items():
        known = into.get(labels)
        if known is None:
            into[labels] = Counts(list(found.counts), found.total)
        else:
            known.counts = [a + b for a, b in zip(known.counts, found.counts, strict=True)]
            known.total += found.total
