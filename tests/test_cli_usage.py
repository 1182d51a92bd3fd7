"""``opsgpt usage`` against a real server of the usage routes."""

import csv
import io
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev_opsgpt.protocol.record import Record
from dev_opsgpt.storage.bulk import insert_many
from dev_opsgpt.storage.database import Database
from tests.launcher.stack import Place
from tests.support.usage_service import ADMIN, CLIENT, CLIENTS_KEY, serving


def record(number: int, model: str, key: str, owner: str, **fields: float) -> Record:
    row = Record(f"r{number}", time.time() - number * 3600, "/v1/completions", model=model)
    row.key, row.owner, row.status = key, owner, 200
    for name, value in fields.items():
        setattr(row, name, value)
    return row


RECORDS = [
    record(0, "m", CLIENTS_KEY, "team-a", prompt_tokens=100, completion_tokens=7, cost=0.25),
    record(1, "m", CLIENTS_KEY, "team-a", first_token=0.5, duration=2.0),
    record(2, "n\x1b[2J", "key_2", "team-b", status=503),
    record(3, "=1+1", "key_2", "team-b"),
    record(500, "m", "key_2", "team-b"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('usage')}/usage.db")
    database.upgrade()
    insert_many(database, RECORDS)
    with serving(database) as found:
        yield found
    database.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = Place(tmp_path_factory.mktemp("cli"))
    found.environ["OPSGPT_ADMIN_KEY"] = ADMIN
    return found


def ask(place: Place, *words: str) -> str:
    done = place.opsgpt("usage", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def failed(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line of a command that failed."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_a_table(place: Place, url: str) -> None:
    header, *lines = ask(place, "--url", url, "--by", "model", "--by", "owner").splitlines()
    assert header.split()[:4] == ["model", "owner", "requests", "errors"]
    cells = [line.split() for line in lines]
    assert ["=1+1", "team-b", "1", "0", "0", "0", "0", "0", "-", "-", "0"] in cells
    assert ["m", "team-a", "2", "0", "100", "0", "7", "0.25", "0.5", "0.5", "1"] in cells
    assert ["n?[2J", "team-b", "1", "1", "0", "0", "0", "0", "-", "-", "0"] in cells


def test_filters(place: Place, url: str) -> None:
    def requests(*words: str) -> int:
        (row,) = json.loads(ask(place, "--url", f"{url}/v1", "--json", *words))["data"]
        return int(row["requests"])

    assert requests() == 5
    assert requests("--since", "2d") == 4
    assert requests("--until", "2d") == 1
    assert requests("--key-id", "key_2") == 3
    assert requests("--owner", "team-a") == 2
    assert requests("--model", "m", "--since", "1d") == 2
    assert requests("--status", "5xx") == 1


def test_ones_own_key(place: Place, url: str) -> None:
    report = json.loads(ask(place, "--url", url, "--key", CLIENT, "--by", "key", "--json"))
    assert [row["key"] for row in report["data"]] == [CLIENTS_KEY]
    line = failed(place.opsgpt("usage", "--url", url, "--key", CLIENT, "--by", "replica"))
    assert "admin" in line


def test_csv(place: Place, url: str, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    assert ask(place, "--url", url, "--by", "model", "--since", "1d", "--csv", str(file)) == ""
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["out.csv"]
    with file.open(newline="") as lines:
        rows = {row["model"]: row for row in csv.DictReader(lines)}
    assert set(rows) == {"'=1+1", "m", "n\x1b[2J"}
    assert rows["m"]["first_token_p95"] == "0.5"
    printed = ask(place, "--url", url, "--csv", "-", "--records", "--status", "503")
    (row,) = csv.DictReader(io.StringIO(printed))
    assert row["request_id"] == "r2"


def test_what_goes_wrong(place: Place, url: str, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        return failed(place.opsgpt("usage", "--url", url, *words))

    assert "'since' must be a time" in said("--since", "yesterday")
    assert "group_by" in said("--by", "colour")
    assert "no such records" in said("--by", "key", "--model", "nobody's")
    assert "--csv" in said("--records")
    missing = tmp_path / "nowhere" / "out.csv"
    assert "cannot be written" in said("--csv", str(missing))
    half = tmp_path / "out.csv"
    half.write_text("what was there")
    assert "answered 400" in said("--csv", str(half), "--status", "700")
    assert half.read_text() == "what was there"
    assert os.listdir(tmp_path) == ["out.csv"]
    wrong = said("--key", "sk-wrong")
    assert "refused the credentials" in wrong
    assert "sk-wrong" not in wrong


def test_nobody_answers(place: Place) -> None:
    assert "Nobody answers" in failed(place.opsgpt("usage"))
