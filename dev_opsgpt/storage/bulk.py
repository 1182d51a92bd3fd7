"""Many usage records in one transaction, at a few microseconds each.

The thread that answers requests holds Python's global lock nearly all the time, and one that gives
it up may wait 5 ms until it gets it back. SQLite's driver gives it up a few times with each
statement, in ``executemany`` with each row. So a statement carries many rows; and not too many,
since while its values are bound nobody else runs.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import Boolean, Connection, Double, Integer
from sqlalchemy.exc import DataError, IntegrityError

from dev_opsgpt.protocol.record import Record
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.tables import usage

FIELDS = Record.__struct_fields__
# Rows of a statement. SQLite gets the largest that still fit, so that a few prepared statements do
# for every number of rows.
SIZES = (512, 128, 32, 8, 2, 1)
POSTGRES_SIZE = 512
# Seconds that PostgreSQL may take for them: somebody may have locked the table.
STATEMENT_TIMEOUT = 20
_COLUMNS = ", ".join(f'"{name}"' for name in FIELDS)
_NUL = "\0"


class Unwritable(Exception):
    """Among the records is one that the database cannot take, now or later."""


def insert_many(database: Database, records: Sequence[Record]) -> None:
    """Writes all of the records, or none. Blocks. Raises ``StorageError`` where trying again may
    help, ``Unwritable`` where it cannot."""
    with database.write() as connection:
        insert = _sqlite if connection.dialect.name == "sqlite" else _postgres
        try:
            insert(connection, records)
        except (DataError, IntegrityError, OverflowError, ValueError, TypeError) as error:
            raise Unwritable(type(error).__name__) from None


def _sqlite(connection: Connection, records: Sequence[Record]) -> None:
    driver: Any = connection.connection.driver_connection
    # 999 before SQLite 3.32, 32,766 since.
    values_taken = driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    for part in _parts(records, values_taken // len(FIELDS)):
        values = chain.from_iterable(map(msgspec.structs.astuple, part))
        connection.exec_driver_sql(_sqlite_insert(len(part)), tuple(values))


def _parts(records: Sequence[Record], most: int) -> Iterator[Sequence[Record]]:
    start = 0
    for size in SIZES:
        while size <= most and len(records) - start >= size:
            yield records[start : start + size]
            start += size


@cache
def _sqlite_insert(rows: int) -> str:
    row = f"({', '.join('?' * len(FIELDS))})"
    return f"INSERT INTO usage ({_COLUMNS}) VALUES {', '.join([row] * rows)}"  # noqa: S608


def _postgres(connection: Connection, records: Sequence[Record]) -> None:
    """One parameter, which the server takes apart: half of COPY's work on this side."""
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}s'")
    for start in range(0, len(records), POSTGRES_SIZE):
        part: Sequence[Record] = records[start : start + POSTGRES_SIZE]
        rows = msgspec.json.encode(part)
        if b"\\u0000" in rows:
            rows = msgspec.json.encode([_without_nul(record) for record in part])
        connection.exec_driver_sql(_postgres_insert(), (rows.decode(),))


@cache
def _postgres_insert() -> str:
    types = {Double: "double precision", Boolean: "boolean", Integer: "integer"}
    fields = ", ".join(f'"{name}" {types.get(type(usage.c[name].type), "text")}' for name in FIELDS)
    return (
        f"INSERT INTO usage ({_COLUMNS}) SELECT {_COLUMNS} "  # noqa: S608
        f"FROM json_to_recordset(%s::json) AS record({fields})"
    )


def _without_nul(record: Record) -> Record:
    """PostgreSQL has no text with a NUL in it; a client may well name a model so."""
    values = msgspec.structs.asdict(record)
    texts = {name: text for name, text in values.items() if isinstance(text, str) and _NUL in text}
    clean = {name: text.replace(_NUL, "\N{REPLACEMENT CHARACTER}") for name, text in texts.items()}
    return msgspec.structs.replace(record, **clean)
