"""The ports that tests are given."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.support.ports import BLOCK, RANGE, free_ports

ROOT = Path(__file__).resolve().parents[2]
OTHER = "from tests.support.ports import free_ports; print(free_ports(1)[0]); input()"


def test_none_is_given_twice() -> None:
    found = [port for count in (1, 3, 10) for port in free_ports(count)]
    assert len(set(found)) == 14
    assert found[4:] == list(range(found[4], found[4] + 10)), "those of one call are neighbours"


def test_one_that_is_in_use_is_passed_over() -> None:
    (before,) = free_ports(1)
    with socket.create_server(("127.0.0.1", before + 1)):
        assert free_ports(1) != [before + 1]


def test_it_begins_again_where_its_ports_have_been_given() -> None:
    for _ in range(2 * BLOCK // 100):
        assert len(free_ports(100)) == 100


def test_another_process_has_others() -> None:
    (mine,) = free_ports(1)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        other.communicate(b"\n")
    first, second = ((port - RANGE.start) // BLOCK for port in (mine, theirs))
    assert first != second
