"""PostgreSQL and Redis, started from the system's own packages on free ports of this machine."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_ports

PATIENCE = 30.0


def until(holds: Callable[[], bool], what: str) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"did not happen: {what}"
        time.sleep(0.05)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a new PostgreSQL server with an empty database. It must not be run by root, so
    where the tests are, it is run by its package's own user."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    as_user: list[str] = []
    with tempfile.TemporaryDirectory(prefix="opsgpt-pg-") as temporary:
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(temporary, owner.pw_uid, owner.pw_gid)
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = f"{temporary}/data"
        (password := Path(temporary, "password")).write_text("wonderland")
        password.chmod(0o644)
        make = [f"{folders[-1]}/initdb", "-D", data, "-U", "alice", "-A", "scram-sha-256"]
        make += ["--no-sync", f"--pwfile={password}"]
        subprocess.run([*as_user, *make], check=True, capture_output=True, cwd=temporary)
        (port,) = free_ports(1)
        run = [f"{folders[-1]}/postgres", "-D", data, "-p", str(port), "-k", temporary]
        run += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with Path(temporary, "log").open("w") as log:
            server = subprocess.Popen([*as_user, *run], cwd=temporary, stderr=log, stdout=log)
        try:
            ready = [f"{folders[-1]}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL")
            yield f"postgresql+psycopg://alice:wonderland@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(PATIENCE)


class Redis:
    """A Redis server that can be stopped and started again on its port."""

    def __init__(self) -> None:
        found = shutil.which("redis-server")
        if found is None:
            pytest.skip("Redis is not installed (Debian: redis-server)")
        (self.port,) = free_ports(1)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._words = [found, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        with tempfile.TemporaryDirectory() as folder:
            self._process = subprocess.Popen(
                [*self._words, "--appendonly", "no"], stdout=subprocess.DEVNULL, cwd=folder
            )
            until(self._answers, "Redis")

    def stop(self) -> None:
        """Kills it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def redis() -> Iterator[Redis]:
    """A new Redis server."""
    server = Redis()
    server.start()
    try:
        yield server
    finally:
        server.stop()
