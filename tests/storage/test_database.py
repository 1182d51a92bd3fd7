"""The database: made once by many, altered never by halves, and no credential told."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, update

from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.storage.tables import keys_version, metadata, usage
from tests.support.ports import free_ports

UPGRADE = """
import sys
from dev_opsgpt.storage.database import Database
database = Database(sys.argv[1])
database.upgrade()
database.close()
"""
ROOT = Path(__file__).parents[2]


def test_several_processes_upgrade_at_once(url: str) -> None:
    words = [sys.executable, "-W", "error", "-c", UPGRADE, url]
    processes = [subprocess.Popen(words, cwd=ROOT) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    database = Database(url)
    with database.read() as connection:
        assert connection.execute(select(keys_version)).all() == [(1, 1)]
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_upgrade_again_changes_nothing(url: str) -> None:
    database = Database(url)
    database.upgrade()
    with database.write() as connection:
        connection.execute(update(keys_version).values(version=7))
    database.upgrade()
    with database.read() as connection:
        assert connection.scalar(select(keys_version.c.version)) == 7
    database.close()


def test_newer_database_is_refused(url: str) -> None:
    database = Database(url)
    database.upgrade()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="newer release"):
        database.upgrade()
    database.close()


def test_what_raises_is_undone(url: str) -> None:
    database = Database(url)
    database.upgrade()

    def fail() -> None:
        with database.write() as connection:
            connection.execute(update(keys_version).values(version=7))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as connection:
        assert connection.scalar(select(keys_version.c.version)) == 1
    database.close()


def test_writers_wait_for_each_other(url: str) -> None:
    database = Database(url)
    database.upgrade()

    def count() -> None:
        for _ in range(20):
            with database.write() as connection:
                connection.execute(update(keys_version).values(version=keys_version.c.version + 1))
                connection.execute(select(keys_version)).all()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.scalar(select(keys_version.c.version)) == 81
    database.close()


def test_usage_rows_are_numbered(url: str) -> None:
    database = Database(url)
    database.upgrade()
    row = {
        **dict.fromkeys(("request_id", "key", "owner", "model", "served", "replica"), "x"),
        **dict.fromkeys(("path", "client"), "x"),
        **dict.fromkeys(("at", "queued", "duration"), 0.5),
        **dict.fromkeys(("status", "attempts"), 1),
        "stream": True,
    }
    with database.write() as connection:
        connection.execute(insert(usage), [row] * 300)
    with database.read() as connection:
        assert list(connection.scalars(select(usage.c.id))) == list(range(1, 301))
    database.close()


def test_settings_of_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url)
    database.upgrade()
    with database.read() as connection:
        for name, value in (("journal_mode", "wal"), ("synchronous", 1), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == value
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000
    database.close()
    assert (tmp_path / "opsgpt.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("url", ["mysql://root:secret@localhost/x", "sqlite://", "secret", "a://["])
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_what_cannot_be_opened_is_one_line_without_the_password(
    postgres_url: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "text").write_text("This is no database, however long it is." * 99)
    urls = [
        f"postgresql+psycopg://alice:secret@127.0.0.1:{free_ports(1)[0]}/x",
        postgres_url.replace("wonderland", "secret"),
        f"sqlite:///{tmp_path}/file/opsgpt.db",
        f"sqlite:///{tmp_path}",
        f"sqlite:///{tmp_path}/text",
    ]
    for url in urls:
        database = Database(url)
        with pytest.raises(StorageError) as caught:
            database.upgrade()
        database.close()
        line = str(caught.value)
        assert "\n" not in line
        assert "secret" not in line
        assert caught.value.__cause__ is None
