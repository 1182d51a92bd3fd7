"""Limits of one machine: several real processes on one file."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits import SharedLimits
from dev_opsgpt.gateway.limits.rows import SLOTS
from dev_opsgpt.gateway.limits.shared_table import FILE, HEADER, SharedTable
from dev_opsgpt.protocol.errors import RateLimited, RequestsLimited

ROOT = Path(__file__).parents[2]
SCRIPT = "tests/gateway/limits_process.py"


@contextmanager
def process(*words: object) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-W", "error", SCRIPT, *map(str, words)]
    running = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def key(**limits: Any) -> Key:
    return Key("key_1", 7, **limits)


def line(running: "subprocess.Popen[str]") -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


async def test_several_processes_share_each_limit(tmp_path: Path) -> None:
    limits = json.dumps({"rpm": 300, "tpm": 10_000, "concurrent": 6, "budget": 100.0})
    words = ("hammer", tmp_path, limits)
    with process(*words) as a, process(*words) as b, process(*words) as c:
        for one in (a, b, c):
            assert line(one) == "ready"
        for one in (a, b, c):
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        reports = [json.loads(one.communicate()[0]) for one in (a, b, c)]
    admitted = sorted(time for report in reports for time in report[0])
    # All within less than a window: exactly the limit, over all processes.
    assert len(admitted) == 300
    assert all(report[0] for report in reports)
    assert 1 < max(report[2] for report in reports) <= 6
    here = SharedLimits(tmp_path)
    used = await here.used(key(concurrent=1, budget=1.0))
    assert (used.requests, used.tokens, used.concurrent) == (300, 300, 0)
    assert used.spent == pytest.approx(0.3)
    await here.close()


async def test_what_a_killed_process_had_in_flight_is_forgotten(tmp_path: Path) -> None:
    limits = SharedLimits(tmp_path)
    holder = key(concurrent=5)
    with process("hold", tmp_path, 3, '{"concurrent": 5}') as other:
        assert line(other) == "3"
        leases = [await limits.admit(holder, 1) for _ in range(2)]
        with pytest.raises(RequestsLimited):
            await limits.admit(holder, 1)
        other.kill()
        other.wait()
        leases += [await limits.admit(holder, 1) for _ in range(3)]
        with pytest.raises(RequestsLimited):
            await limits.admit(holder, 1)
    # One that comes in its place begins with nothing, and leaves the others' alone.
    with process("hold", tmp_path, 0, "{}") as other:
        assert line(other) == "0"
        assert (await limits.used(holder)).concurrent == 5
    for lease in leases:
        limits.settle(lease, 1, 0.0)
    assert (await limits.used(holder)).concurrent == 0
    await limits.close()


async def test_kill_in_the_middle_of_counting_locks_nobody_out(tmp_path: Path) -> None:
    limits = SharedLimits(tmp_path)
    wide = {"rpm": 10**9, "tpm": 10**9, "concurrent": 50}
    for _ in range(6):
        with process("update", tmp_path, json.dumps(wide)) as other:
            assert line(other) == "begun"
            time.sleep(random.random() * 0.1)
            other.send_signal(signal.SIGKILL)
            other.wait()
    used = await limits.used(key(**wide))
    # At most one request of each killed process is not settled.
    assert 0 <= used.tokens - used.requests <= 6
    assert used.requests > 0
    # Nobody who is no more counts.
    leases = [await limits.admit(key(**wide), 1) for _ in range(50)]
    for lease in leases:
        limits.settle(lease, 1, 0.0)
    await limits.close()


async def test_a_stopped_process_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dev_opsgpt.gateway.limits.shared_table.PATIENCE", 0.05)
    code = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1024 + 7)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    limits = SharedLimits(tmp_path)
    lock = str(tmp_path / "limits-1.lock")
    with subprocess.Popen(
        [sys.executable, "-c", code, lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert line(other) == "locked"
        other.send_signal(signal.SIGSTOP)
        for _ in range(3):
            await limits.admit(key(rpm=3), 1)
        with pytest.raises(RequestsLimited):
            await limits.admit(key(rpm=3), 1)
        other.kill()
    await limits.close()


async def test_counters_outlive_the_process_and_not_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = key(rpm=5, concurrent=5)
    limits = SharedLimits(tmp_path)
    leases = [await limits.admit(holder, 1) for _ in range(2)]
    await limits.close()
    limits = SharedLimits(tmp_path, alone=True)
    used = await limits.used(holder)
    assert (used.requests, used.concurrent) == (2, 0)
    del leases
    await limits.close()
    monkeypatch.setattr("dev_opsgpt.gateway.limits.shared_table._boot", lambda: 4711)
    limits = SharedLimits(tmp_path)
    assert (await limits.used(holder)).requests == 0
    await limits.close()


@pytest.mark.parametrize("left", [b"", b"x" * 10, b"\x00" * HEADER, b"\xff" * (HEADER + 5000)])
async def test_what_is_no_table_is_replaced(tmp_path: Path, left: bytes) -> None:
    (tmp_path / FILE).write_bytes(left)
    limits = SharedLimits(tmp_path)
    await limits.admit(key(rpm=1), 1)
    with pytest.raises(RateLimited):
        await limits.admit(key(rpm=1), 1)
    await limits.close()


async def test_many_keys_take_little_room(tmp_path: Path) -> None:
    limits = SharedLimits(tmp_path)
    for number in (1, 1023, 1024, 5000, 200_000):
        holder = Key(f"key_{number}", number, rpm=1)
        await limits.admit(holder, 1)
        with pytest.raises(RateLimited):
            await limits.admit(holder, 1)
    found = (tmp_path / FILE).stat()
    assert found.st_blocks * 512 < 300_000
    assert found.st_mode & 0o077 == 0
    await limits.close()


async def test_without_room_each_process_counts_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits = SharedLimits(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    await limits.admit(key(rpm=1), 1)
    with pytest.raises(RateLimited):
        await limits.admit(key(rpm=1), 1)
    assert "No space left on device" in caplog.text
    await limits.close()


def test_as_many_processes_as_there_are_slots(tmp_path: Path) -> None:
    table = SharedTable(tmp_path)
    assert (table.slot, table.slots) == (0, 1)
    with process("hold", tmp_path, 0, "{}") as other:
        assert line(other) == "0"
        assert table.slots == 2
    assert table.slots <= SLOTS
    table.close()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|exists"):
        SharedLimits(tmp_path / "file")
