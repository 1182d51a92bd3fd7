"""What processes cost, read from /proc; and that nothing is left behind."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from benchmarks.processes import (
    Process,
    StartFailed,
    cpu_seconds,
    free_port,
    listeners,
    parse_stat,
    resident_bytes,
)

BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"
# A child that works and ends, then the parent waits to be stopped.
PARENT = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {BUSY!r}])\n"
STAYS = "print('ready', flush=True)\ntime.sleep(60)\n"
ORPHAN = (
    "import subprocess, time\n"
    "print(subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
    "time.sleep(60)\n"
)


def said(log: Path) -> str:
    deadline = time.monotonic() + 60
    while not log.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return log.read_text()


def test_a_process_whose_name_has_spaces_and_parentheses() -> None:
    rest = "S 7 1 1 0 -1 4194560 100 0 0 0 30 12 5 3 20 0 1 0 100 1000 10"
    assert parse_stat(f"42 (a (b) c) {rest}") == (7, 50)


def test_an_unknown_process_costs_nothing() -> None:
    assert cpu_seconds([2**30]) == 0
    assert resident_bytes([2**30]) == 0


def test_a_child_that_has_ended_counts(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", PARENT + STAYS], tmp_path / "log")
    try:
        assert "ready" in said(tmp_path / "log")
        assert cpu_seconds([process.pid]) >= 0.29
        assert resident_bytes([process.pid]) > 1 << 20
    finally:
        process.stop()


def test_a_child_that_outlives_its_parent_is_ended(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", ORPHAN], tmp_path / "log")
    child = int(said(tmp_path / "log"))
    process.stop()
    deadline = time.monotonic() + 30
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_sockets_that_share_a_port_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as one:
        address = one.getsockname()
        assert listeners(address[1]) == 1
        with (
            socket.create_server(address, reuse_port=True),
            socket.create_connection(address),
        ):
            assert listeners(address[1]) == 2
    assert listeners(address[1]) == 0


def test_a_program_that_ends_at_once(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", "print('what is wrong')"], tmp_path / "log")
    with pytest.raises(StartFailed, match="what is wrong"):
        process.wait_for(f"http://127.0.0.1:{free_port()}/")
    process.stop()


def test_environment_and_folder(tmp_path: Path) -> None:
    code = "import os\nprint(os.environ['NAMED'], os.getcwd(), flush=True)\n"
    process = Process(
        [sys.executable, "-c", code], tmp_path / "log", env={"NAMED": "here"}, cwd=tmp_path
    )
    assert said(tmp_path / "log").split() == ["here", os.path.realpath(tmp_path)]
    process.stop()
