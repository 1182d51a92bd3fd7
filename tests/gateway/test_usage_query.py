"""The parameters of questions about usage."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.gateway.usage_query import read_groups, read_name, read_status, read_time
from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.storage.usage import GROUPS

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC).timestamp()
HOUR = 3600


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", NOW),
        ("90s", NOW - 90),
        ("5m", NOW - 300),
        ("24h", NOW - 24 * HOUR),
        ("7d", NOW - 7 * 24 * HOUR),
        ("2w", NOW - 14 * 24 * HOUR),
        ("2026-03-15", NOW - 12 * HOUR),
        ("2026-03-15T12:00", NOW),
        ("2026-03-15T12:00:00Z", NOW),
        ("2026-03-15T13:00:00+01:00", NOW),
        ("2026-03-15T13:00:00 01:00", NOW),
        ("7", 7.0),
        ("1700000000", 1_700_000_000.0),
        ("1700000000.25", 1_700_000_000.25),
        ("20260315", 20_260_315.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert read_time("since", text, NOW) == seconds


@pytest.mark.parametrize(
    "text", ["", "d", "7 d", "-7d", "7y", "٧d", "nan", "inf", "1e9", "yesterday", "2026-02-30"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_time("until", text, NOW)
    assert caught.value.param == "until"
    assert "7d" in caught.value.message


@given(st.text(max_size=30) | st.from_regex(r"[0-9TZ:+. -]{1,30}", fullmatch=True))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        found = read_time("since", text, NOW)
    except InvalidRequest:
        return
    assert abs(found) < 1e17


@given(st.datetimes(timezones=st.timezones()))
def test_times_that_python_writes(moment: datetime) -> None:
    try:
        seconds = moment.timestamp()
    except OverflowError:
        return
    assert read_time("since", moment.isoformat(), NOW) == seconds


def test_statuses() -> None:
    assert read_status("429") == range(429, 430)
    assert read_status("5xx") == read_status("5XX") == range(500, 600)
    for wrong in ("", "x", "5", "6xx", "5x", "5xxx", "099", "600", "-1", "5xx\n", "٤٢٩"):
        with pytest.raises(InvalidRequest) as caught:
            read_status(wrong)
        assert caught.value.param == "status"


def test_groups() -> None:
    assert read_groups([]) == []
    assert read_groups(["model,day", "model", " key "]) == ["model", "day", "key"]
    assert read_groups([",".join(GROUPS)]) == list(GROUPS)
    for wrong in ("", "models", "model,", "id", "model;day"):
        with pytest.raises(InvalidRequest) as caught:
            read_groups([wrong])
        assert caught.value.param == "group_by"
        assert "hour" in caught.value.message


def test_names() -> None:
    assert read_name("model", None) is None
    assert read_name("model", "") == ""
    assert read_name("model", "a'b") == "a'b"
    with pytest.raises(InvalidRequest):
        read_name("model", "a\0b")
