"""Questions to the usage records: sums by group, the records themselves, and their end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Label,
    Select,
    case,
    cast,
    delete,
    func,
    select,
)

from dev_opsgpt.protocol.record import Record
from dev_opsgpt.storage.bulk import FIELDS
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.tables import usage

Group = Literal["key", "owner", "model", "served", "replica", "status", "day", "hour"]
GROUPS: tuple[Group, ...] = get_args(Group)
PERCENTILES = {"first_token_p50": 50, "first_token_p95": 95}
FIGURES = (
    "requests",
    "errors",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "total_tokens",
    "cost",
    "first_token_mean",
    *PERCENTILES,
    "duration_mean",
)
# Rows that are deleted in one transaction, so that writers get in between.
PRUNED_AT_ONCE = 10_000
_SECONDS = {"day": 86_400, "hour": 3_600}
_FORMS = {"day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H:00Z"}


@dataclass(frozen=True)
class Filters:
    """Which records: from ``since`` on and before ``until`` (Unix seconds), of one key, owner or
    model asked for, with a status in ``statuses``. None: all."""

    since: float | None = None
    until: float | None = None
    key: str | None = None
    owner: str | None = None
    model: str | None = None
    statuses: range | None = None


def report(
    database: Database, filters: Filters, group_by: Sequence[Group], most: int
) -> list[dict[str, Any]]:
    """The figures of each group that has records, in the groups' order, ``most`` groups at most;
    one row for everything without ``group_by``.

    A row holds the groups' values (times as text, in UTC) and ``FIGURES``. Errors are answers of
    status 400 and above. Times are seconds, None where no record has any: the mean of durations is
    over all records, those of the first token over the records that got one; a percentile is the
    smallest value that so large a share of them does not exceed. Blocks; raises ``StorageError``.
    """
    with database.read() as connection:
        groups = [_group(name, connection) for name in group_by]
        rows = connection.execute(_report(filters, groups).limit(most)).mappings()
        return [_row(dict(row)) for row in rows]


def records(
    database: Database, filters: Filters, limit: int, after: int = 0
) -> list[tuple[int, Record]]:
    """Up to ``limit`` records in the order they were written, from the one that follows the id
    ``after``; each with its id. Blocks; raises ``StorageError``."""
    query = select(usage.c.id, *(usage.c[name] for name in FIELDS))
    query = query.where(usage.c.id > after, *_where(filters)).order_by(usage.c.id).limit(limit)
    with database.read() as connection:
        return [(row[0], Record(*row[1:])) for row in connection.execute(query)]


def prune(database: Database, before: float) -> int:
    """Deletes records older than ``before`` (Unix seconds), up to ``PRUNED_AT_ONCE``, and gives
    their number: with so many there may be more. Blocks; raises ``StorageError``."""
    old = select(usage.c.id).where(usage.c.at < before).limit(PRUNED_AT_ONCE)
    with database.write() as connection:
        return connection.execute(delete(usage).where(usage.c.id.in_(old))).rowcount


def _where(filters: Filters) -> list[ColumnElement[bool]]:
    columns = usage.c
    found: list[ColumnElement[bool]] = []
    if filters.since is not None:
        found.append(columns.at >= filters.since)
    if filters.until is not None:
        found.append(columns.at < filters.until)
    for name in ("key", "owner", "model"):
        if (value := getattr(filters, name)) is not None:
            found.append(columns[name] == value)
    if filters.statuses is not None:
        found.append(columns.status.between(filters.statuses.start, filters.statuses.stop - 1))
    return found


def _group(name: Group, connection: Connection) -> Label[Any]:
    """A group's value: the column, or the number of the day or hour since 1970 in UTC."""
    if name not in _SECONDS:
        return usage.c[name].label(name)
    number = usage.c.at / _SECONDS[name]
    # SQLite may have been built without floor(); its cast cuts off, PostgreSQL's rounds.
    whole = number if connection.dialect.name == "sqlite" else func.floor(number)
    return cast(whole, Integer).label(name)


def _report(filters: Filters, groups: list[Label[Any]]) -> Select[Any]:
    columns = usage.c
    # Each record's place among its group's by the first token; those without come last.
    partition = groups or None
    first = columns.first_token
    inner = select(
        *groups,
        *(columns[n] for n in ("prompt_tokens", "completion_tokens", "cached_tokens")),
        *(columns.cost, first, columns.duration, columns.status.label("answered")),
        func.row_number()
        .over(partition_by=partition, order_by=[first.is_(None), first])
        .label("place"),
        func.count(first).over(partition_by=partition).label("places"),
    ).where(*_where(filters))
    source = inner.subquery()
    row = source.c
    by = [row[group.name] for group in groups]
    return select(*by, *_figures(row)).group_by(*by).order_by(*by)


def _figures(row: Any) -> list[Label[Any]]:
    def total(name: str) -> ColumnElement[Any]:
        return func.coalesce(func.sum(row[name]), 0)

    named = {
        "requests": func.count(),
        "errors": func.coalesce(func.sum(case((row.answered >= 400, 1), else_=0)), 0),
        "prompt_tokens": total("prompt_tokens"),
        "completion_tokens": total("completion_tokens"),
        "cached_tokens": total("cached_tokens"),
        "total_tokens": total("prompt_tokens") + total("completion_tokens"),
        "cost": func.coalesce(func.sum(row.cost), 0.0),
        "first_token_mean": func.avg(row.first_token),
        **{
            name: func.min(case((row.place * 100 >= share * row.places, row.first_token)))
            for name, share in PERCENTILES.items()
        },
        "duration_mean": func.avg(row.duration),
    }
    return [figure.label(name) for name, figure in named.items()]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    for name, form in _FORMS.items():
        if name in row:
            row[name] = datetime.fromtimestamp(row[name] * _SECONDS[name], UTC).strftime(form)
    return row
