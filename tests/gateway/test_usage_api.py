"""``/v1/usage`` over real HTTP: what admins see, what clients see, what is refused."""

import csv
import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.gateway import usage_api
from dev_opsgpt.protocol.record import Record
from dev_opsgpt.storage.bulk import insert_many
from dev_opsgpt.storage.database import Database
from tests.support.usage_service import ADMIN, CLIENT, CLIENTS_KEY, KEYLESS, serving

NAMED = ["since", "until", "key", "owner", "model", "status", "format"]
NOW = 1_700_000_000.0
DAY = 86_400


def record(number: int, **fields: Any) -> Record:
    given = {"request_id": f"r{number}", "at": NOW - 60 + number, "path": "/v1/completions"}
    return Record(**(given | fields))


RECORDS = [
    record(0, key=CLIENTS_KEY, model="m", status=200, prompt_tokens=10, completion_tokens=5),
    record(1, key=CLIENTS_KEY, model="n", status=429, client="10.0.0.1"),
    record(2, key="key_2", model="=m", owner="o", status=200, cost=0.5, replica="http://inside"),
    record(3, model="m", status=503, error="unavailable", at=NOW - 10 * DAY),
    record(4, model="m", status=200, at=NOW - 40 * DAY),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('usage')}/usage.db")
    database.upgrade()
    insert_many(database, RECORDS)
    with serving(database, clock=lambda: NOW) as url:
        yield url
    database.close()


def ask(url: str, token: str | None = ADMIN, path: str = "", **params: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"{url}/v1/usage{path}", params=params, headers=headers)


def rows(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def sheet(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def refused(answer: httpx.Response, status: int, param: str | None) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    return str(error["message"])


def test_everything_of_the_last_month(service: str) -> None:
    answer = ask(service)
    (row,) = rows(answer)
    assert (row["requests"], row["errors"], row["total_tokens"]) == (4, 2, 15)
    assert row["cost"] == 0.5
    assert answer.json()["since"] == NOW - 30 * DAY
    assert answer.json()["group_by"] == []


def test_groups_and_filters(service: str) -> None:
    found = rows(ask(service, group_by=["model", "day"], since="60d"))
    assert [(row["model"], row["day"], row["requests"]) for row in found] == [
        ("=m", "2023-11-14", 1),
        ("m", "2023-10-05", 1),
        ("m", "2023-11-04", 1),
        ("m", "2023-11-14", 1),
        ("n", "2023-11-14", 1),
    ]
    assert rows(ask(service, group_by="model,status", status="5xx")) == [
        row for row in rows(ask(service, group_by="model,status")) if row["status"] == 503
    ]
    assert rows(ask(service, key="key_2", owner="o", model="=m"))[0]["requests"] == 1
    assert rows(ask(service, key=""))[0]["requests"] == 1
    assert rows(ask(service, until="1d"))[0]["requests"] == 1


def test_a_client_sees_its_own(service: str) -> None:
    assert rows(ask(service, CLIENT))[0]["requests"] == 2
    assert rows(ask(service, CLIENT, key=CLIENTS_KEY))[0]["requests"] == 2
    assert [row["key"] for row in rows(ask(service, CLIENT, group_by="key"))] == [CLIENTS_KEY]
    own = rows(ask(service, CLIENT, "/records"))
    assert [row["request_id"] for row in own] == ["r0", "r1"]
    assert "replica" not in own[0]
    assert "replica" not in sheet(ask(service, CLIENT, "/records", format="csv"))[0]


@pytest.mark.parametrize("path", ["", "/records"])
def test_others_are_kept_out(service: str, path: str) -> None:
    refused(ask(service, CLIENT, path, key="key_2"), 403, "key")
    refused(ask(service, CLIENT, path, key=""), 403, "key")
    refused(ask(service, KEYLESS, path), 403, "key")
    assert ask(service, None, path).headers["www-authenticate"] == "Bearer"
    refused(ask(service, "sk-wrong", path, since="nonsense"), 401, None)


def test_replicas_are_for_admins(service: str) -> None:
    assert len(rows(ask(service, group_by="replica"))) == 2
    refused(ask(service, CLIENT, group_by="replica"), 403, None)


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"since": "yesterday"}, "since"),
        ({"until": ""}, "until"),
        ({"since": "1d", "until": "2d"}, "until"),
        ({"status": "700"}, "status"),
        ({"model": "a\0"}, "model"),
        ({"format": "xml"}, "format"),
        ({"modell": "m"}, "modell"),
        ({"group_by": "colour"}, "group_by"),
    ],
)
def test_wrong_questions(service: str, params: dict[str, str], param: str) -> None:
    assert refused(ask(service, ADMIN, **params), 400, param)
    if "group_by" not in params:
        refused(ask(service, ADMIN, "/records", **params), 400, param)


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"after": -1}, {"after": 2**63}]
)
def test_wrong_pages(service: str, params: dict[str, Any]) -> None:
    refused(ask(service, ADMIN, "/records", **params), 400, next(iter(params)))


def test_pages_of_records(service: str) -> None:
    seen: list[str] = []
    after, more = 0, True
    while more:
        answer = ask(service, ADMIN, "/records", since="60d", limit=2, after=after)
        seen += [row["request_id"] for row in rows(answer)]
        after, more = answer.json()["last_id"], answer.json()["has_more"]
    assert seen == [row.request_id for row in RECORDS]
    end = ask(service, ADMIN, "/records", after=after).json()
    assert end == {"object": "list", "data": [], "last_id": None, "has_more": False}


def test_a_report_as_csv(service: str) -> None:
    found = sheet(ask(service, group_by=["model", "key"], format="csv"))
    assert [row["model"] for row in found] == ["'=m", "m", "m", "n"]
    assert found[2]["prompt_tokens"] == "10"
    assert found[0]["first_token_p95"] == ""


def test_records_as_csv(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_api, "MOST_RECORDS", 2)
    found = sheet(ask(service, ADMIN, "/records", format="csv", since="60d"))
    assert [row["request_id"] for row in found] == ["r0", "r1", "r2", "r3", "r4"]
    assert found[0]["at"] == "2023-11-14T22:12:20.000Z"
    assert (found[0]["stream"], found[3]["error"], found[2]["replica"]) == (
        "false",
        "unavailable",
        "http://inside",
    )
    assert sheet(ask(service, ADMIN, "/records", format="csv", model="nobody's")) == []


def test_too_many_groups(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_api, "MOST_GROUPS", 2)
    assert "more than 2" in refused(ask(service, group_by="model"), 400, "group_by")
    assert len(rows(ask(service, group_by="status", model="m"))) == 2


NAMES = [*NAMED, "group_by", "limit", "after", "no_such"]
VALUES = st.sampled_from(["", "7d", "0", "m", "model", "csv", "5xx", "%00", "9" * 30]) | st.text()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4), st.booleans())
def test_any_question_is_answered_or_refused(
    service: str, pairs: list[tuple[str, str]], single: bool
) -> None:
    query = urlencode(pairs, errors="surrogatepass")
    headers = {"authorization": f"Bearer {ADMIN}"}
    path = "/v1/usage/records" if single else "/v1/usage"
    answer = httpx.get(f"{service}{path}?{query}", headers=headers)
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert answer.json()["error"]["param"] in NAMES


def test_a_database_that_cannot_be_read(tmp_path: Any) -> None:
    database = Database(f"sqlite:///{tmp_path}/nothing.db")
    with serving(database) as url:
        for path in ("", "/records"):
            answer = ask(url, ADMIN, path)
            message = refused(answer, 503, None)
            assert "nothing.db" not in message
            assert answer.headers["retry-after"] == "5"
    database.close()
