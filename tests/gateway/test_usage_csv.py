"""CSV that a spreadsheet may open."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.usage_csv import FORMULA, lines, time_text


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_cells() -> None:
    row = ["plain", 'a "b", c', "two\nlines", 5, 0.25, -1.5, None, True, False, "模型"]
    assert read(lines([row, []])) == [
        ["plain", 'a "b", c', "two\nlines", "5", "0.25", "-1.5", "", "true", "false", "模型"],
        [],
    ]


def test_formulas_are_texts() -> None:
    for text in ('=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"):
        assert read(lines([[text]])) == [["'" + text]]


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=3)))
def test_no_cell_begins_like_a_formula(rows: list[list[str]]) -> None:
    found = read(lines(rows))
    assert [len(row) for row in found] == [len(row) for row in rows]
    for texts, row in zip(rows, found, strict=True):
        assert not any(cell.startswith(FORMULA) for cell in row)
        assert [cell.removeprefix("'") for cell in row] == [t.removeprefix("'") for t in texts]


def test_times() -> None:
    assert time_text(0) == "1970-01-01T00:00:00.000Z"
    assert time_text(1_700_000_000.9996) == "2023-11-14T22:13:20.999Z"
