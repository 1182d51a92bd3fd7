"""Tables as CSV (RFC 4180), safe to be opened in a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

# What spreadsheets take for the beginning of a formula.
# Source: OWASP, "CSV Injection".
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def cell(value: Any) -> Any:
    """A cell's value. A text that a spreadsheet would run gets an apostrophe before it, which
    makes it a text there; numbers stay numbers, nothing is an empty cell."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """The rows in UTF-8."""
    out = io.StringIO()
    csv.writer(out).writerows([cell(value) for value in row] for row in rows)
    return out.getvalue().encode()


def time_text(at: float) -> str:
    """Unix seconds as spreadsheets and people read them, to the millisecond, in UTC."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
