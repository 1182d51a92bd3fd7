"""Streams and replicas in small numbers, through a real controller and gateway."""

import ipaddress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import many, replicas, streams
from benchmarks.contenders.opsgpt import Keyed
from benchmarks.load import LoadFailed


def quiet(_: str) -> None:
    """Says nothing."""


def test_a_few_streams_at_once(tmp_path: Path) -> None:
    (found,) = streams.measure({1: Keyed}, tmp_path, count=30, say=quiet, kind="paced")
    assert (found.processes, found.at_once, found.failed) == (1, 30, 0)
    assert found.cpu > 0


def test_more_files_than_the_system_allows() -> None:
    with pytest.raises(LoadFailed, match="open files"):
        streams.allow_files(1 << 40)
    streams.allow_files(1)


@pytest.mark.slow
def test_a_gateway_in_front_of_a_few_replicas(tmp_path: Path) -> None:
    found = replicas.measure(tmp_path / "replicas", count=8, seconds=1, say=quiet)
    assert (found.replicas, found.reached, found.failed) == (8, 8, 0)
    assert found.least >= 1
    assert found.gateway_mebibytes > 1


@given(st.integers(1, 2000))
def test_every_replica_has_an_address_of_its_own_on_this_machine(count: int) -> None:
    hosts = many.addresses(count)
    assert len(set(hosts)) == count
    assert all(ipaddress.ip_address(host).is_loopback for host in hosts)


def test_an_answer_says_who_gave_it() -> None:
    body = msgspec.json.decode(many.answer_of("127.1.2.3"))
    assert many.address_in(body["id"]) == "127.1.2.3"
