"""``GET /v1/usage``: what was used, summed up by groups; ``GET /v1/usage/records``: one by one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from dev_opsgpt.gateway import usage_csv
from dev_opsgpt.gateway.usage_query import read_groups, read_name, read_status, read_time
from dev_opsgpt.protocol.errors import InvalidRequest, PermissionDenied, Unavailable
from dev_opsgpt.protocol.record import Record
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.storage.usage import FIGURES, GROUPS, Filters, Group, records, report

T = TypeVar("T")

DEFAULT_SINCE = "30d"
MOST_GROUPS = 10_000
MOST_RECORDS = 1_000
# Questions that run at once; each can keep a core busy for seconds.
THREADS = 2
# The inner address of a worker is nothing for clients.
ADMINS_ONLY = "replica"
_FIELDS = Record.__struct_fields__
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
    "4XX": {"description": "The question is wrong or not allowed; the error names the parameter."},
    "5XX": {"description": "The database cannot be read."},
}
_STATUS = {"pattern": "^[1-5]([0-9][0-9]|[xX][xX])$"}
_NAME = f"({'|'.join(GROUPS)})"
_GROUPS = {"items": {"type": "string", "pattern": f"^{_NAME}(,{_NAME})*$"}}
_TIME = "`7d` (also w, h, m, s) ago, an ISO 8601 date or time (UTC), or Unix seconds."


@dataclass(frozen=True)
class Seen:
    """Whose records a caller may see: ``all``, or those of the key with the id ``key``."""

    all: bool = False
    key: str | None = None


Clock = Callable[[], float]
Who = Callable[[Request], Seen]
Format = Literal["json", "csv"]
Reader = Callable[..., Awaitable[Filters]]


def _reader(clock: Clock) -> Reader:
    """The dependency that reads the filters; they are relative to the clock's time."""

    async def read(
        since: Annotated[str, Query(description=f"From when on: {_TIME}")] = DEFAULT_SINCE,
        until: Annotated[str | None, Query(description=f"Before when: {_TIME}")] = None,
        key: Annotated[str | None, Query(description="Id of a key; empty: without one.")] = None,
        owner: Annotated[str | None, Query(description="Owner of keys.")] = None,
        model: Annotated[str | None, Query(description="Model that was asked for.")] = None,
        status: Annotated[
            str | None, Query(description="Such as `429` or `5xx`.", json_schema_extra=_STATUS)
        ] = None,
    ) -> Filters:
        now = clock()
        found = Filters(
            since=read_time("since", since, now),
            until=read_time("until", until, now) if until is not None else None,
            key=read_name("key", key),
            owner=read_name("owner", owner),
            model=read_name("model", model),
            statuses=read_status(status) if status is not None else None,
        )
        if found.until is not None and found.until <= (found.since or 0):
            raise InvalidRequest("'until' must be later than 'since'.", param="until")
        return found

    return read


_PARAMETERS = frozenset({"since", "until", "key", "owner", "model", "status", "format"})


def create_usage_routes(database: Database, who: Who, *, clock: Clock = time.time) -> APIRouter:
    """The routes. ``who`` tells what a caller may see, and raises ``ApiError`` for strangers; the
    application turns errors into answers. ``clock`` gives Unix seconds."""
    router = APIRouter(tags=["usage"], responses=_ANSWERS)
    questions = _Questions(database, who)
    read_filters = _reader(clock)
    _add_report(router, questions, read_filters)
    _add_records(router, questions, read_filters)
    return router


class _Questions:
    """Asks the database, in threads of its own."""

    def __init__(self, database: Database, who: Who) -> None:
        self._database = database
        self._who = who
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="usage-question")

    async def see(self, request: Request) -> Seen:
        """The dependency that tells what a caller may see."""
        return self._who(request)

    async def ask(self, question: Callable[[Database], T]) -> T:
        """What the database answers. Raises ``Unavailable``."""
        ask = partial(question, self._database)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except StorageError:
            # Its reason names files and hosts, and stands in the log of what writes there.
            raise Unavailable("The usage records cannot be read now.", retry_after=5) from None


def _add_report(router: APIRouter, questions: _Questions, read_filters: Reader) -> None:
    @router.get("/v1/usage")
    async def usage(
        request: Request,
        # First of all: strangers are not told what is wrong with their question.
        seen: Annotated[Seen, Depends(questions.see)],
        filters: Annotated[Filters, Depends(read_filters)],
        group_by: Annotated[
            list[str] | None,
            Query(
                description=f"Any of {', '.join(GROUPS)}; several: again.",
                json_schema_extra=_GROUPS,
            ),
        ] = None,
        format: Annotated[Format, Query(description="Form of the answer.")] = "json",
    ) -> Response:
        """Requests, tokens, cost and times, by group."""
        _check_names(request, _PARAMETERS | {"group_by"})
        groups = read_groups(group_by or [])
        if ADMINS_ONLY in groups and not seen.all:
            raise PermissionDenied(f"Only an admin key may group by {ADMINS_ONLY}.")
        allowed = _allowed(filters, seen)
        rows = await questions.ask(lambda db: report(db, allowed, groups, MOST_GROUPS + 1))
        if len(rows) > MOST_GROUPS:
            message = f"These are more than {MOST_GROUPS} groups: narrow the time, or group by less"
            raise InvalidRequest(f"{message}.", param="group_by", code="too_many_groups")
        if format == "csv":
            return _csv("usage", _sheet([*groups, *FIGURES], rows))
        return _json(_report(allowed, groups, rows))


def _add_records(router: APIRouter, questions: _Questions, read_filters: Reader) -> None:
    @router.get("/v1/usage/records")
    async def usage_records(
        request: Request,
        seen: Annotated[Seen, Depends(questions.see)],
        filters: Annotated[Filters, Depends(read_filters)],
        limit: Annotated[int, Query(ge=1, le=MOST_RECORDS, description="Of one JSON page.")] = 100,
        after: Annotated[
            int, Query(ge=0, le=2**63 - 1, description="`last_id` of the page before.")
        ] = 0,
        format: Annotated[
            Format, Query(description="json: a page; csv: all that follow.")
        ] = "json",
    ) -> Response:
        """The records, oldest first."""
        _check_names(request, _PARAMETERS | {"limit", "after"})
        allowed = _allowed(filters, seen)
        names = [name for name in _FIELDS if seen.all or name != ADMINS_ONLY]

        async def page(start: int, size: int) -> list[tuple[int, Record]]:
            return await questions.ask(lambda db: records(db, allowed, size, start))

        if format == "csv":
            first = await page(after, MOST_RECORDS)
            return _csv("records", _record_sheet(names, first, page))
        return _json(_record_page(names, await page(after, limit + 1), limit))


def _check_names(request: Request, known: frozenset[str]) -> None:
    """A mistyped filter must not give more than was asked for."""
    for name in request.query_params:
        if name not in known:
            message = f"There is no parameter '{name}' here; there are {', '.join(sorted(known))}."
            raise InvalidRequest(message, param=name, code="unknown_parameter")


def _allowed(filters: Filters, seen: Seen) -> Filters:
    if seen.all:
        return filters
    if seen.key is None or filters.key not in (None, seen.key):
        raise PermissionDenied("Only an admin key may see the usage of other keys.", param="key")
    return replace(filters, key=seen.key)


def _report(
    filters: Filters, groups: Sequence[Group], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "object": "usage.report",
        "since": filters.since,
        "until": filters.until,
        "group_by": groups,
        "data": rows,
    }


def _record_page(
    names: Sequence[str], found: Sequence[tuple[int, Record]], limit: int
) -> dict[str, Any]:
    page = found[:limit]
    data = [{"id": id_, **{name: getattr(row, name) for name in names}} for id_, row in page]
    last = page[-1][0] if page else None
    return {"object": "list", "data": data, "last_id": last, "has_more": len(found) > limit}


async def _sheet(names: Sequence[str], rows: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    yield usage_csv.lines([names])
    for start in range(0, len(rows), MOST_RECORDS):
        part = rows[start : start + MOST_RECORDS]
        yield usage_csv.lines([row[name] for name in names] for row in part)


async def _record_sheet(
    names: Sequence[str],
    found: list[tuple[int, Record]],
    page: Callable[[int, int], Any],
) -> AsyncIterator[bytes]:
    """Page by page: no transaction stays open while a client takes its time."""
    yield usage_csv.lines([["id", *names]])
    while found:
        yield usage_csv.lines(_cells(names, found))
        found = await page(found[-1][0], MOST_RECORDS)


def _cells(names: Sequence[str], found: Sequence[tuple[int, Record]]) -> Iterable[list[Any]]:
    for id_, row in found:
        values = (getattr(row, name) for name in names)
        times = zip(names, values, strict=True)
        yield [id_, *(usage_csv.time_text(v) if name == "at" else v for name, v in times)]


def _csv(name: str, body: AsyncIterator[bytes]) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(body, media_type="text/csv; charset=utf-8", headers=headers)


def _json(answer: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
