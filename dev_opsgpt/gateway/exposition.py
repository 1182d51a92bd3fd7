"""A snapshot as Prometheus's text: `prometheus_client` knows the formats, we know the figures."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from dev_opsgpt.gateway.metric_names import FAMILIES, PROCESS_FAMILIES, Family
from dev_opsgpt.gateway.snapshot import Counts, Labels, Snapshot


def expose(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The page and its content type: OpenMetrics where ``accept``, the request's header, asks for
    it, else the plain text format. Every name is on it, with or without a value."""
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:
        # It compares with numbers a version that is none.
        encode, content_type = choose_encoder("")
    return encode(_Page(snapshot)), content_type


def process_figures() -> dict[str, float]:
    """This process's own figures, by their exported names; none where there is no /proc. It reads
    the list of open files, which takes milliseconds where there are thousands."""
    # Registered nowhere: the default registry is a global, and each of us has its own page.
    families = ProcessCollector(registry=None).collect()
    samples = (sample for family in families for sample in family.samples)
    return {s.name: float(s.value) for s in samples if s.name in PROCESS_FAMILIES}


class _Page(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot
        for family in FAMILIES.values():
            if family.kind == "histogram":
                yield _histogram(family, snapshot.histograms.get(family.name, {}))
            else:
                series = snapshot.counters if family.kind == "counter" else snapshot.gauges
                yield _plain(family, series.get(family.name, {}))
        yield from self._processes()

    def _processes(self) -> Iterator[Metric]:
        for name, family in PROCESS_FAMILIES.items():
            found = self._snapshot.process.items()
            yield _plain(family, {(number,): f[name] for number, f in found if name in f})


def _plain(family: Family, series: Mapping[Labels, float]) -> Metric:
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name, family.help, labels=family.labels)
    for labels, value in series.items():
        metric.add_metric(labels, value)
    return metric


def _histogram(family: Family, series: Mapping[Labels, Counts]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, found in series.items():
        steps = zip((*map(str, family.bounds), "+Inf"), accumulate(found.counts), strict=True)
        metric.add_metric(labels, list(steps), found.total)
    return metric
