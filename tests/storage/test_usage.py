"""Usage records in real databases: what is written is what the reports say."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from dev_opsgpt.protocol.record import Record
from dev_opsgpt.storage.bulk import FIELDS, Unwritable, insert_many
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.storage.tables import usage
from dev_opsgpt.storage.usage import FIGURES, GROUPS, Filters, Group, prune, records, report

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
ALL = Filters()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    found = Database(url)
    found.upgrade()
    yield found
    found.close()


def record(number: int = 0, **fields: Any) -> Record:
    given = {"request_id": f"r{number}", "at": NOON + number, "path": "/v1/completions"} | fields
    return Record(**given)


def total(database: Database, filters: Filters = ALL) -> dict[str, Any]:
    (row,) = report(database, filters, [], 10)
    return row


def test_a_record_is_a_row() -> None:
    assert {"id", *FIELDS} == set(usage.columns.keys())


def test_every_field_comes_back(database: Database) -> None:
    full = Record(
        request_id="r",
        at=NOON + 0.123456,
        path="/v1/chat/completions",
        model="模型 'quoted' \"twice\" \\ %s ? :x {}",
        served="m",
        replica="http://127.0.0.1:20002",
        key="key_1",
        owner="team, \n a",
        client="::1",
        stream=True,
        status=499,
        error="upstream_failed",
        prompt_tokens=2**31 - 1,
        completion_tokens=0,
        cached_tokens=7,
        cost=1e-9,
        attempts=3,
        queued=0.25,
        first_token=0.5,
        generating=1.5,
        duration=2.5,
    )
    bare = Record("", 0.0, "")
    insert_many(database, [full, bare])
    assert [row for _, row in records(database, ALL, 10)] == [full, bare]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 255, 257, 1023, 2100])
def test_any_number_at_once(database: Database, count: int) -> None:
    insert_many(database, [record(n, prompt_tokens=n) for n in range(count)])
    found = records(database, ALL, 5000)
    assert [row.request_id for _, row in found] == [f"r{n}" for n in range(count)]
    assert total(database)["prompt_tokens"] == sum(range(count))


def test_one_that_cannot_be_written_takes_all_of_them_back(database: Database) -> None:
    for bad in (record(1, prompt_tokens=2**70), record(1, owner=None)):
        with pytest.raises(Unwritable):
            insert_many(database, [record(0), bad, record(2)])
    assert records(database, ALL, 10) == []


def test_a_nul_and_no_number_are_no_trouble(database: Database) -> None:
    insert_many(database, [record(0, model="a\0b", cost=math.nan), record(1)])
    (_, found), _ = records(database, ALL, 10)
    assert found.model in ("a\0b", "a\N{REPLACEMENT CHARACTER}b")
    assert found.cost is None


def test_without_tables_it_may_be_tried_again(url: str) -> None:
    database = Database(url)
    try:
        with pytest.raises(StorageError):
            insert_many(database, [record()])
    finally:
        database.close()


# Reports.


def test_an_empty_report(database: Database) -> None:
    row = total(database)
    assert set(row) == set(FIGURES)
    assert {row[name] for name in FIGURES if not name.startswith(("first", "duration"))} == {0}
    assert {row[name] for name in FIGURES if name.startswith(("first", "duration"))} == {None}
    assert report(database, ALL, ["model"], 10) == []


def test_figures(database: Database) -> None:
    given = [record(n, first_token=n / 10, duration=2.0, status=200) for n in range(1, 21)]
    given += [
        record(30, status=500, duration=0.0, prompt_tokens=10, completion_tokens=5, cost=0.5),
        record(31, status=399, duration=0.0, prompt_tokens=10, cached_tokens=4, cost=0.25),
    ]
    insert_many(database, given)
    assert total(database) == {
        "requests": 22,
        "errors": 1,
        "prompt_tokens": 20,
        "completion_tokens": 5,
        "cached_tokens": 4,
        "total_tokens": 25,
        "cost": 0.75,
        "first_token_mean": pytest.approx(1.05),
        "first_token_p50": 1.0,
        "first_token_p95": 1.9,
        "duration_mean": pytest.approx(40 / 22),
    }


def test_days_and_hours_are_in_utc(database: Database) -> None:
    midnight = NOON + 12 * 3600
    insert_many(database, [record(0, at=at) for at in (midnight - 0.001, midnight, NOON, 0.5)])
    days = [(row["day"], row["requests"]) for row in report(database, ALL, ["day"], 10)]
    assert days == [("1970-01-01", 1), ("2026-03-01", 2), ("2026-03-02", 1)]
    hours = [row["hour"] for row in report(database, Filters(since=1), ["hour"], 10)]
    assert hours == ["2026-03-01T12:00Z", "2026-03-01T23:00Z", "2026-03-02T00:00Z"]


def test_filters(database: Database) -> None:
    insert_many(
        database,
        [
            record(0, key="a", owner="x", model="m", status=200),
            record(1, key="a", owner="x", model="n", status=404),
            record(2, key="b", owner="x", model="m", status=429),
            record(3, key="", owner="", model="m", status=500),
        ],
    )
    for filters, found in [
        (Filters(key="a"), 2),
        (Filters(key=""), 1),
        (Filters(owner="x", model="m"), 2),
        (Filters(statuses=range(400, 500)), 2),
        (Filters(statuses=range(429, 430)), 1),
        (Filters(since=NOON + 1), 3),
        (Filters(until=NOON + 1), 1),
        (Filters(since=NOON + 1, until=NOON + 3, key="b"), 1),
        (Filters(model="nobody's"), 0),
    ]:
        assert total(database, filters)["requests"] == found, filters
        assert len(records(database, filters, 10)) == found, filters


def test_groups_are_cut_where_asked(database: Database) -> None:
    insert_many(database, [record(n, model=f"m{n}") for n in range(5)])
    rows = report(database, ALL, ["model"], 3)
    assert [row["model"] for row in rows] == ["m0", "m1", "m2"]


RECORD: st.SearchStrategy[Callable[[int], Record]] = st.fixed_dictionaries(
    {
        "at": st.integers(0, 60).map(lambda step: NOON + step * 1800.25),
        "key": st.sampled_from(["", "a", "b"]),
        "model": st.sampled_from(["m", "n"]),
        "status": st.sampled_from([200, 499, 503]),
        "prompt_tokens": st.none() | st.integers(0, 2**31 - 1),
        "completion_tokens": st.none() | st.integers(0, 9),
        "cost": st.none() | st.integers(0, 8).map(lambda eighths: eighths / 8),
        "first_token": st.none() | st.integers(0, 20).map(lambda quarters: quarters / 4),
        "duration": st.integers(0, 20).map(lambda quarters: quarters / 4),
    }
).map(lambda fields: lambda number: record(number, **fields))


def summed(group: list[Record]) -> dict[str, Any]:
    """The figures by plain rules."""
    firsts = sorted(r.first_token for r in group if r.first_token is not None)
    prompt = sum(r.prompt_tokens or 0 for r in group)
    completion = sum(r.completion_tokens or 0 for r in group)

    def percentile(share: int) -> float | None:
        return firsts[math.ceil(len(firsts) * share / 100) - 1] if firsts else None

    return {
        "requests": len(group),
        "errors": sum(r.status >= 400 for r in group),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cached_tokens": sum(r.cached_tokens or 0 for r in group),
        "total_tokens": prompt + completion,
        "cost": sum(r.cost or 0 for r in group),
        "first_token_mean": pytest.approx(sum(firsts) / len(firsts)) if firsts else None,
        "first_token_p50": percentile(50),
        "first_token_p95": percentile(95),
        "duration_mean": pytest.approx(sum(r.duration for r in group) / len(group)),
    }


def value(row: Record, group: Group) -> Any:
    moment = datetime.fromtimestamp(row.at, UTC)
    times = {"day": f"{moment:%Y-%m-%d}", "hour": f"{moment:%Y-%m-%dT%H:00Z}"}
    return times[group] if group in times else getattr(row, group)


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(RECORD, max_size=40), st.lists(st.sampled_from(GROUPS), max_size=3, unique=True))
def test_reports_against_plain_python(
    database: Database, made: list[Callable[[int], Record]], group_by: list[Group]
) -> None:
    with database.write() as connection:
        connection.execute(text("DELETE FROM usage"))
    given = [make(number) for number, make in enumerate(made)]
    insert_many(database, given)
    groups = defaultdict(list)
    for row in given:
        groups[tuple(value(row, group) for group in group_by)].append(row)
    found = {
        tuple(row.pop(group) for group in group_by): row
        for row in report(database, ALL, group_by, 1000)
    }
    if group_by or given:
        assert found == {names: summed(rows) for names, rows in groups.items()}


# Records, and their end.


def test_pages(database: Database) -> None:
    insert_many(database, [record(n, model="m" if n % 3 else "n") for n in range(10)])
    seen: list[str] = []
    after = 0
    while page := records(database, Filters(model="m"), 4, after):
        assert len(page) <= 4
        seen += [row.request_id for _, row in page]
        after = page[-1][0]
    assert seen == ["r1", "r2", "r4", "r5", "r7", "r8"]


def test_pruning(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev_opsgpt.storage.usage.PRUNED_AT_ONCE", 7)
    insert_many(database, [record(n) for n in range(30)])
    assert [prune(database, NOON + 11) for _ in range(3)] == [7, 4, 0]
    assert [row.at for _, row in records(database, ALL, 3)] == [NOON + 11, NOON + 12, NOON + 13]


def test_records_are_not_changed(database: Database) -> None:
    given = record(0, model="a\0b")
    before = msgspec.structs.replace(given)
    insert_many(database, [given])
    assert given == before
