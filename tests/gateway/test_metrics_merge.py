"""Several processes' figures as one, and a place that changes hands."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.exporter import STALE, Exporter
from dev_opsgpt.gateway.metric_names import FAMILIES
from dev_opsgpt.gateway.metrics import Metrics
from dev_opsgpt.gateway.model_figures import TIMES
from dev_opsgpt.gateway.snapshot import Counts, Snapshot, lasting, merge
from dev_opsgpt.gateway.snapshot_files import SnapshotFiles
from dev_opsgpt.protocol.record import Record

# Whole numbers: their sums are exact in any order.
numbers = st.integers(min_value=0, max_value=2**40).map(float)
names = st.sampled_from(["tiny", "large", "unknown", 'odd "one"\n'])


def series(kind: str) -> st.SearchStrategy[dict[str, dict[tuple[str, ...], float]]]:
    chosen = [family for family in FAMILIES.values() if family.kind == kind]
    return st.fixed_dictionaries(
        {},
        optional={
            family.name: st.dictionaries(
                st.tuples(*[names for _ in family.labels]), numbers, max_size=4
            )
            for family in chosen
        },
    )


def counts(name: str) -> st.SearchStrategy[Counts]:
    steps = len(FAMILIES[name].bounds) + 1
    several = st.lists(st.integers(0, 2**40), min_size=steps, max_size=steps)
    return st.builds(Counts, several, numbers)


histograms = st.fixed_dictionaries(
    {},
    optional={
        name: st.dictionaries(st.tuples(names), counts(name), max_size=3) for name in sorted(TIMES)
    },
)
snapshots = st.builds(
    Snapshot,
    at=numbers,
    counters=series("counter"),
    gauges=series("gauge"),
    histograms=histograms,
)


@given(st.lists(snapshots, max_size=4), st.randoms())
def test_the_order_makes_no_difference(found: list[Snapshot], rng: object) -> None:
    expected = merge(found)
    shuffled = list(found)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merge(shuffled) == expected


@given(snapshots, snapshots, snapshots)
def test_groups_make_no_difference(a: Snapshot, b: Snapshot, c: Snapshot) -> None:
    assert merge([merge([a, b]), c]) == merge([a, merge([b, c])]) == merge([a, b, c])


@given(snapshots)
def test_one_is_itself_and_is_not_shared(one: Snapshot) -> None:
    before = msgspec.msgpack.encode(one)
    merged = merge([one])
    assert merged == one
    merge([merged, one])
    for by_labels in merged.histograms.values():
        for found in by_labels.values():
            found.counts[0] += 1
    assert msgspec.msgpack.encode(one) == before


@given(st.lists(snapshots, min_size=1, max_size=4))
def test_values_are_summed_or_the_highest(found: list[Snapshot]) -> None:
    merged = merge(found)
    for name, by_labels in (merged.counters | merged.gauges).items():
        for labels, value in by_labels.items():
            each = [s.counters.get(name, s.gauges.get(name, {})).get(labels, None) for s in found]
            known = [v for v in each if v is not None]
            assert value == (sum(known) if FAMILIES[name].merge == "sum" else max(known))


@given(snapshots)
def test_what_is_gone_has_counted_but_sees_nothing(one: Snapshot) -> None:
    left = lasting(one)
    assert (left.counters, left.histograms) == (one.counters, one.histograms)
    assert not left.gauges
    assert not left.process


record_fields = st.fixed_dictionaries(
    {
        "request_id": st.just("r"),
        "at": st.just(1.0),
        "path": st.sampled_from(["/v1/chat/completions", "/v1/embeddings"]),
        "served": st.sampled_from(["tiny", "large", ""]),
        "status": st.sampled_from([200, 404, 429, 499, 502]),
        "error": st.sampled_from([None, "overloaded"]),
        "stream": st.booleans(),
        "attempts": st.integers(0, 3),
        "prompt_tokens": st.none() | st.integers(0, 1000),
        "completion_tokens": st.none() | st.integers(0, 1000),
        "cached_tokens": st.none() | st.integers(0, 1000),
        "cost": st.none() | st.integers(0, 10).map(float),
        # Sums of these are exact.
        "queued": st.integers(0, 100).map(lambda n: n / 64),
        "first_token": st.none() | st.integers(0, 100).map(lambda n: n / 64),
        "generating": st.none() | st.just(0.0),
        "duration": st.integers(0, 100).map(lambda n: n / 64),
    }
)
records = st.lists(record_fields.map(lambda fields: Record(**fields)), max_size=15)


def counted(*groups: list[Record]) -> Snapshot:
    """What one process after the other counts in the same place."""
    before = Snapshot()
    for group in groups:
        metrics = Metrics()
        metrics.inherit(before)
        for record in group:
            metrics.finished(record)
            metrics.retried(record.served)
        before = metrics.snapshot(1.0)
    return before


@given(records, records, records)
def test_an_heir_goes_on_as_if_nothing_had_happened(
    a: list[Record], b: list[Record], c: list[Record]
) -> None:
    assert counted(a, b, c) == counted(a + b + c)


@given(records, records)
def test_two_processes_count_as_one_would(a: list[Record], b: list[Record]) -> None:
    merged, whole = merge([counted(a), counted(b)]), counted(a + b)
    assert merged.counters == whole.counters
    assert merged.histograms == whole.histograms


def test_an_heir_adds_to_what_others_count() -> None:
    written = 5.0
    sources = {"opsgpt_usage_records_written_total": lambda: [((), written)]}
    first = Metrics(sources)
    second = Metrics(sources)
    second.inherit(first.snapshot(1.0))
    written = 2.0
    assert second.snapshot(1.0).counters["opsgpt_usage_records_written_total"] == {(): 7.0}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def exporter(
    folder: Path, index: int, clock: Clock, depth: float = 1.0
) -> tuple[Metrics, Exporter]:
    metrics = Metrics({"opsgpt_queue_depth": lambda: [(("tiny",), depth)]})
    made = Exporter(metrics, SnapshotFiles(folder, index), index=index, clock=clock)
    made.take_over()
    return metrics, made


async def lines(exporter: Exporter) -> list[str]:
    return (await exporter.page())[0].decode().splitlines()


async def test_any_process_answers_for_all(tmp_path: Path) -> None:
    clock = Clock()
    first, one = exporter(tmp_path / "made" / "for it", 0, clock)
    second, two = exporter(tmp_path / "made" / "for it", 1, clock, depth=4.0)
    first.shed("tiny")
    second.shed("tiny")
    await one.close()
    for found in (await lines(two), await lines(one)):
        assert 'opsgpt_shed_total{model="tiny"} 2.0' in found
        assert 'opsgpt_queue_depth{model="tiny"} 5.0' in found
        assert "opsgpt_gateway_processes 2.0" in found
        assert any(line.startswith('process_cpu_seconds_total{process="1"}') for line in found)


async def test_what_was_shown_outlives_a_kill(tmp_path: Path) -> None:
    clock = Clock()
    first, one = exporter(tmp_path, 0, clock)
    first.shed("tiny")
    shown = await lines(one)
    # Killed here: no goodbye, no second's write.
    _, heir = exporter(tmp_path, 0, clock)
    assert 'opsgpt_shed_total{model="tiny"} 1.0' in shown
    assert 'opsgpt_shed_total{model="tiny"} 1.0' in await lines(heir)


async def test_a_process_that_is_gone_is_not_seen(tmp_path: Path) -> None:
    clock = Clock()
    gone, one = exporter(tmp_path, 0, clock)
    gone.shed("tiny")
    await one.close()
    _, two = exporter(tmp_path, 1, clock)
    clock.now += STALE + 1
    found = await lines(two)
    assert 'opsgpt_shed_total{model="tiny"} 1.0' in found
    assert 'opsgpt_queue_depth{model="tiny"} 1.0' in found
    assert "opsgpt_gateway_processes 1.0" in found


@pytest.mark.parametrize("data", [b"", b"\xff torn", msgspec.msgpack.encode({"layout": "older"})])
async def test_files_that_are_none_of_ours_are_left_out(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "metrics-0").write_bytes(data)
    (tmp_path / "metrics-7").write_bytes(data)
    (tmp_path / ".metrics-8.123").write_bytes(data)
    _, one = exporter(tmp_path, 0, Clock())
    assert "opsgpt_gateway_processes 1.0" in await lines(one)


async def test_a_folder_that_takes_nothing_costs_the_others_view_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    metrics, one = exporter(tmp_path / "file", 0, Clock())
    metrics.shed("tiny")
    assert 'opsgpt_shed_total{model="tiny"} 1.0' in await lines(one)
    await one.close()
    assert len([r for r in caplog.records if "cannot be shared" in r.message]) == 1


async def test_one_process_needs_no_folder() -> None:
    metrics = Metrics()
    alone = Exporter(metrics)
    alone.take_over()
    await alone.run()
    metrics.shed("tiny")
    assert 'opsgpt_shed_total{model="tiny"} 1.0' in await lines(alone)
    await alone.close()
