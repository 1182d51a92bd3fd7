"""What the gateway counts: plain additions while requests run, read when somebody asks.

``prometheus_client`` writes the page and nothing else: one of its labelled increments costs as
much as all of a request's figures do here.
"""

import platform
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from dev_opsgpt import __version__
from dev_opsgpt.gateway.metric_names import FAMILIES, OTHER, UNKNOWN
from dev_opsgpt.gateway.model_figures import TIMES, TOTALS, ModelFigures
from dev_opsgpt.gateway.snapshot import Labels, Snapshot
from dev_opsgpt.protocol.record import Record

Read = Callable[[], Iterable[tuple[Labels, float]]]
"""Gives a family's present values, each with its labels' values in the family's order."""

# Bounds on what others can make us remember: a catch-all upstream's models and a worker's error
# codes are not ours to choose.
MOST_MODELS = 2000
MOST_ERRORS = 100
MOST_SERIES = 20_000

REQUESTS = "opsgpt_requests_total"
RETRIES = "opsgpt_retries_total"
FALLBACKS = "opsgpt_fallbacks_total"
HEDGES = "opsgpt_hedges_total"
SHED = "opsgpt_shed_total"
EVENTS = (RETRIES, FALLBACKS, HEDGES, SHED)


class _Outcome:
    """How many requests for a model ended in one way."""

    __slots__ = ("model", "requests")

    def __init__(self, model: ModelFigures) -> None:
        self.model = model
        self.requests = 0


class _Source(NamedTuple):
    read: Read
    before: dict[Labels, float]
    """What the processes before this one had counted."""


class Metrics:
    """One gateway process's figures. All of it belongs to the event loop's thread.

    ``sources`` maps names of families that others count or know (`metric_names.py`) to callables
    that give their values; they are called for a snapshot. Raises ``ValueError`` for a name that
    has none.
    """

    def __init__(self, sources: Mapping[str, Read] | None = None) -> None:
        self._models: dict[str, ModelFigures] = {}
        self._errors: set[str] = set()
        # By what a record says, and by what is exported of it: labels are bounded, records are not.
        self._outcomes: dict[tuple[str, str, int, str | None], _Outcome] = {}
        self._series: dict[Labels, _Outcome] = {}
        self._events: dict[str, dict[Labels, float]] = {name: {} for name in EVENTS}
        build = (__version__, platform.python_version())
        ours: dict[str, Read] = {
            "opsgpt_build_info": lambda: [(build, 1.0)],
            "opsgpt_gateway_processes": lambda: [((), 1.0)],
        }
        self._sources = {
            name: _Source(read, {}) for name, read in (ours | dict(sources or {})).items()
        }
        counted = {REQUESTS, *EVENTS, *TOTALS, *TIMES}
        if wrong := self._sources.keys() - (FAMILIES.keys() - counted):
            raise ValueError(f"no source can be had for {', '.join(sorted(wrong))}")

    def finished(self, record: Record) -> None:
        """Counts a request that is over."""
        outcome = self._outcomes.get((record.served, record.path, record.status, record.error))
        if outcome is None:
            outcome = self._outcome(record)
        outcome.requests += 1
        outcome.model.add(record)

    def retried(self, model: str) -> None:
        """Counts a request that is given to another worker."""
        self._count(RETRIES, model)

    def fell_back(self, model: str, to: str) -> None:
        """Counts a request for one model that another is asked to answer."""
        self._count(FALLBACKS, model, to)

    def hedged(self, model: str) -> None:
        """Counts a second worker that is asked beside a slow one."""
        self._count(HEDGES, model)

    def shed(self, model: str) -> None:
        """Counts a request that is refused for want of room."""
        self._count(SHED, model)

    def inherit(self, before: Snapshot) -> None:
        """Goes on where the process that had this one's place left off. Before anything else."""
        for labels, value in before.counters.get(REQUESTS, {}).items():
            self._error(labels[3])
            self._labelled(labels).requests = int(value)
        for model in {labels[0] for name in TOTALS for labels in before.counters.get(name, {})}:
            self._model(model).load(before)
        for name in EVENTS:
            self._events[name] = dict(before.counters.get(name, {}))
        for name, source in self._sources.items():
            source.before.update(before.counters.get(name, {}))

    def snapshot(self, at: float) -> Snapshot:
        """All figures as they are now. ``at`` is Unix time in seconds."""
        snapshot = Snapshot(at=at)
        counters = snapshot.counters
        counters[REQUESTS] = {labels: found.requests for labels, found in self._series.items()}
        for name, series in self._events.items():
            counters[name] = dict(series)
        for model in self._models.values():
            model.save(snapshot)
        for name, (read, before) in self._sources.items():
            into = counters if FAMILIES[name].kind == "counter" else snapshot.gauges
            into[name] = before | {
                labels: value + before.get(labels, 0.0) for labels, value in read()
            }
        return snapshot

    def _count(self, name: str, *models: str) -> None:
        series = self._events[name]
        labels = tuple(self._model(model).label for model in models)
        series[labels] = series.get(labels, 0) + 1

    def _outcome(self, record: Record) -> _Outcome:
        """The first time that a request for a model ends in this way."""
        model = self._model(record.served)
        labels = (model.label, record.path, str(record.status), self._error(record.error))
        outcome = self._labelled(labels)
        if len(self._outcomes) < MOST_SERIES:
            self._outcomes[record.served, record.path, record.status, record.error] = outcome
        return outcome

    def _labelled(self, labels: Labels) -> _Outcome:
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = _Outcome(self._model(labels[0]))
        return found

    def _model(self, name: str) -> ModelFigures:
        label = name or UNKNOWN
        found = self._models.get(label)
        if found is None:
            label = label if len(self._models) < MOST_MODELS else OTHER
            found = self._models.setdefault(label, ModelFigures(label))
        return found

    def _error(self, code: str | None) -> str:
        if not code or code in self._errors:
            return code or ""
        if len(self._errors) >= MOST_ERRORS:
            return OTHER
        self._errors.add(code)
        return code
