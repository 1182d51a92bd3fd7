"""The writer of usage records: in order, none lost that could be written, whatever happens."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from sqlalchemy import text

from dev_opsgpt.gateway.usage import LONGEST_TEXT, UsageWriter
from dev_opsgpt.protocol.record import Record
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.usage import Filters, records
from tests.storage.servers import postgres

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, file: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{file}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """An empty database."""
    database = Database(url)
    database.upgrade()
    with database.write() as connection:
        connection.execute(text("DELETE FROM usage"))
    try:
        yield database
    finally:
        database.close()


@contextmanager
def running(
    database: Database, before: Iterable[Record] = (), **options: Any
) -> Iterator[UsageWriter]:
    """A writer; what is added ``before`` is there when it begins."""
    writer = UsageWriter(database, **({"interval": 0.02} | options))
    for one in before:
        writer.add(one)
    writer.start()
    try:
        yield writer
    finally:
        writer.close(0)


def record(number: int, **fields: Any) -> Record:
    return Record(f"r{number}", 1_700_000_000.0 + number, "/v1/completions", **fields)


def found(database: Database) -> list[str]:
    return [row.request_id for _, row in records(database, Filters(), 1_000_000)]


def names(numbers: range) -> list[str]:
    return [f"r{number}" for number in numbers]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_are_written_in_order(url: str) -> None:
    with opened(url) as database, running(database) as writer:
        for number in range(5000):
            writer.add(record(number))
        until(lambda: writer.pending == 0)
        assert (writer.written, writer.dropped) == (5000, 0)
        assert found(database) == names(range(5000))


def test_from_several_threads(url: str) -> None:
    def add(first: int) -> None:
        for number in range(first, first + 1000):
            writer.add(record(number))

    with opened(url) as database, running(database, interval=0.001) as writer:
        threads = [threading.Thread(target=add, args=(n * 1000,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.close() == 0
        assert sorted(found(database)) == sorted(names(range(4000)))


def test_closing_writes_what_is_left(url: str) -> None:
    with opened(url) as database, running(database, interval=3600) as writer:
        for number in range(10):
            writer.add(record(number))
        assert writer.close() == 0
        assert found(database) == names(range(10))


def test_nothing_happens_before_start(file: Path) -> None:
    threads = threading.active_count()
    writer = UsageWriter(Database(f"sqlite:///{file}"))
    writer.add(record(0))
    assert threading.active_count() == threads
    assert not file.exists()
    assert writer.pending == 1
    assert writer.close() == 1


def test_a_locked_database(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dev_opsgpt.storage.database.BUSY_TIMEOUT", 0.02)
    caplog.set_level(logging.INFO, "dev_opsgpt.gateway.usage")
    with opened(f"sqlite:///{file}") as database:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with running(database, map(record, range(10))) as writer:
            until(lambda: writer._failures >= 3)
            assert (writer.pending, writer.written) == (10, 0)
            other.execute("ROLLBACK")
            other.close()
            until(lambda: writer.pending == 0)
            until(lambda: writer._failures == 0)
            assert found(database) == names(range(10))
    # Of others in this process may be heard as well.
    said = [entry for entry in caplog.records if entry.name == "dev_opsgpt.gateway.usage"]
    assert [entry.levelname for entry in said] == ["ERROR", "INFO"], "once a minute"
    assert "10 wait" in said[0].getMessage()


def test_locked_until_the_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev_opsgpt.storage.database.BUSY_TIMEOUT", 0.02)
    with opened(f"sqlite:///{file}") as database, running(database) as writer:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for number in range(10):
            writer.add(record(number))
        assert writer.close(0.5) == 10
        other.close()


def test_the_oldest_give_way(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev_opsgpt.storage.database.BUSY_TIMEOUT", 0.02)
    with opened(f"sqlite:///{file}") as database, running(database, most=10) as writer:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for number in range(25):
            writer.add(record(number))
        until(lambda: writer.dropped == 15)
        other.close()
        until(lambda: writer.pending == 0)
        assert writer.close() == 0
        assert found(database) == names(range(15, 25))
        assert (writer.written, writer.dropped) == (10, 15)


def test_a_server_that_breaks_off(postgres_url: str) -> None:
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    )
    with opened(postgres_url) as database, running(database, interval=0.001) as writer:
        killer = Database(postgres_url)
        for number in range(300):
            writer.add(record(number))
            if number % 50 == 0:
                until(lambda: writer.written > 0)
                with killer.write() as connection:
                    connection.execute(kill)
        until(lambda: writer.pending == 0)
        assert found(database) == names(range(300))
        killer.close()


def test_a_server_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with postgres() as url:
        database = Database(url)
        database.upgrade()
        database.close()
    with running(database) as writer:
        writer.add(record(0))
        until(lambda: writer._failures > 0)
        assert writer.close(0.1) == 1
    database.close()
    assert "wonderland" not in caplog.text, "no credential in the log"


def test_one_that_cannot_be_written_is_left_out(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with opened(url) as database, running(database, interval=3600) as writer:
        for number in range(3000):
            bad = number in (0, 1, 1500, 2999)
            writer.add(record(number, prompt_tokens=2**70 if bad else 1))
        assert writer.close() == 0
        assert (writer.written, writer.dropped) == (2996, 4)
        left = set(names(range(3000))) - {"r0", "r1", "r1500", "r2999"}
        assert sorted(found(database)) == sorted(left)


def test_anything_unexpected_keeps_the_records(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(f"sqlite:///{file}") as database, running(database) as writer:
        with monkeypatch.context() as patched:
            patched.setattr("dev_opsgpt.gateway.usage.insert_many", None)
            writer.add(record(0))
            until(lambda: writer._failures > 0)
        until(lambda: writer.written == 1)
        assert found(database) == ["r0"]
    assert "TypeError" in caplog.text


def test_long_texts_of_clients_are_cut(file: Path) -> None:
    with opened(f"sqlite:///{file}") as database, running(database) as writer:
        given = record(0, model="m" * 10_000_000)
        writer.add(given)
        until(lambda: writer.pending == 0)
        ((_, row),) = records(database, Filters(), 2)
        assert row.model == "m" * LONGEST_TEXT
        assert len(given.model) == 10_000_000, "others still read the record"


def test_old_records_go(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev_opsgpt.storage.usage.PRUNED_AT_ONCE", 7)
    monkeypatch.setattr("dev_opsgpt.gateway.usage.PRUNED_AT_ONCE", 7)
    now = 1_700_000_000.0 + 100
    options = {"keep_for": 80.0, "wall_clock": lambda: now}
    with opened(f"sqlite:///{file}") as database, running(database, **options) as writer:
        for number in range(30):
            writer.add(record(number))
        until(lambda: writer.pending == 0)
        until(lambda: len(found(database)) <= 10)
        assert found(database) == names(range(20, 30))
        assert (writer.written, writer.dropped) == (30, 0)


# Real processes.


@contextmanager
def child(url: str, largest: int = 0) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gateway.usage_child", url, str(largest)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def told(process: "subprocess.Popen[str]") -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def read_until(process: "subprocess.Popen[str]", seconds: float) -> None:
    """Reads along until the process has added records for so long."""
    for line in told(process):
        if float(line.split()[1]) >= seconds:
            return
    pytest.fail("the process ended")


def count(url: str) -> int:
    database = Database(url)
    try:
        return len(found(database))
    finally:
        database.close()


def emptied(url: str) -> str:
    with opened(url):
        return url


def test_sigterm_loses_none(url: str) -> None:
    with child(emptied(url)) as process:
        read_until(process, 0.8)
        process.send_signal(signal.SIGTERM)
        lines = told(process).readlines()
        assert process.wait(PATIENCE) == 0
    assert count(url) == int(lines[-1].split()[0])


def test_kill_loses_nothing_that_was_written(url: str) -> None:
    """And it is written all the time: what is lost are the last moment's."""
    with child(emptied(url)) as process:
        seen = 0
        rounds = 0
        while rounds < 3:
            before, seen = seen, int(told(process).readline().split()[2])
            rounds += seen > before
        process.kill()
        lines = [line.split() for line in told(process) if line.endswith("\n")]
    assert count(url) >= max([seen, *(int(words[2]) for words in lines if len(words) == 3)])


def test_files_that_must_not_grow(file: Path) -> None:
    url = f"sqlite:///{file}"
    with child(url, largest=150_000) as process:
        read_until(process, 1.5)
        assert file.stat().st_size <= 150_000
        assert count(url) < 1000, "the database takes no more"
        process.send_signal(signal.SIGTERM)
        lines = told(process).readlines()
        assert process.wait(PATIENCE) == 0
    assert count(url) == int(lines[-1].split()[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a disk of 1 MB")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    with opened(f"sqlite:///{small_disk}/usage.db") as database:
        filler = small_disk / "filler"
        with running(database) as writer:
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            filler.write_bytes(bytes(free - 8192))
            for number in range(1000):
                writer.add(record(number))
            until(lambda: writer._failures > 0)
            assert writer.pending > 0
            filler.unlink()
            until(lambda: writer.pending == 0)
            assert writer.close() == 0
            assert found(database) == names(range(1000))
