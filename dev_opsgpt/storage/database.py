"""The database as an object: opened, brought up to date, read, written, closed."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.storage.migrations import migrate

# Seconds that a statement waits for another writer (SQLite), or a connection for its server.
BUSY_TIMEOUT = 10.0
CONNECT_TIMEOUT = 5
# The same number for everybody who brings this database up to date, and for nobody else.
ADVISORY_LOCK = 0x6F707367
WRITES = "opsgpt_writes"


class Database:
    """A database by its URL: ``sqlite:///<path>`` or ``postgresql+psycopg://...``.

    Nothing is opened before it is used. All methods block, raise ``StorageError``, and may be
    called from any thread. Raises ``StorageError`` for a URL that cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._file = self._url.database if self._is_sqlite else None
        try:
            self._engine = self._open()
        except ModuleNotFoundError as error:
            raise StorageError(f"The database needs the Python package {error.name}.") from None
        except (NoSuchModuleError, ArgumentError):
            raise StorageError("DATABASE_URL names a database that is not supported.") from None

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine."""
        return self._engine

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def upgrade(self) -> None:
        """Makes or alters the tables to what this release needs. Several processes may do so at
        once: one does it, the others wait."""
        with self._errors(), self._upgrading(), self.write() as connection:
            if not self._is_sqlite:
                # Held until the transaction ends, however it ends.
                connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
            migrate(connection)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading."""
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection in a transaction that is committed when the block ends, and undone when it
        raises."""
        with self._errors(), self._engine.connect() as connection:
            connection = connection.execution_options(**{WRITES: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    def _open(self) -> Engine:
        if not self._is_sqlite:
            return create_engine(
                self._url,
                pool_size=4,
                pool_pre_ping=True,
                connect_args={"connect_timeout": CONNECT_TIMEOUT},
            )
        engine = create_engine(self._url, connect_args={"timeout": BUSY_TIMEOUT})
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        return engine

    @contextlib.contextmanager
    def _upgrading(self) -> Iterator[None]:
        """SQLite's journal mode can be changed only while nobody else is there: so one at a time,
        by a lock that the kernel takes from whoever dies."""
        if self._file is None:
            yield
            return
        path = Path(self._file)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Usage and hashes of keys are nobody else's business.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self._engine.connect() as connection:
                connection.exec_driver_sql("ROLLBACK")
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StorageError(f"The database {self._shown} failed: {_line(error)}") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(f"The database {self._shown} cannot be opened: {reason}") from None

    @property
    def _shown(self) -> str:
        """What people are told: where it is, and not by which credential."""
        if self._file is not None:
            return self._file
        host = self._url.host or "localhost"
        return f"{self._url.database or ''} on {host}".strip()


def _parse(url: str) -> URL:
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password.
        raise StorageError(
            "DATABASE_URL is no URL such as sqlite:///<path> or "
            "postgresql+psycopg://<user>:<password>@<host>/<name>."
        ) from None
    if found.drivername in ("postgres", "postgresql"):
        found = found.set(drivername="postgresql+psycopg")
    if found.get_backend_name() not in ("sqlite", "postgresql"):
        raise StorageError(
            f"A database of the kind '{found.drivername}' is not supported; DATABASE_URL takes "
            "sqlite:///<path> or postgresql+psycopg://<user>:<password>@<host>/<name>."
        )
    if found.get_backend_name() == "sqlite" and found.database in (None, "", ":memory:"):
        raise StorageError("DATABASE_URL needs the path of a file: sqlite:///<path>.")
    return found


def _prepare(connection: Any, _: Any) -> None:
    """Settings of one SQLite connection."""
    # sqlite3 would begin transactions by rules of its own; `_begin` does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A writer takes its lock at once: one that first reads and then finds another writer there
    # could not wait for it.
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _line(error: DBAPIError) -> str:
    """The driver's reason in one line; statement and parameters are not told."""
    lines = str(error.orig).splitlines()
    return lines[0] if lines else type(error.orig).__name__
