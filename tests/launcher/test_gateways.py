"""Several gateways on one port."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dev_opsgpt.launcher.plan import Listen
from dev_opsgpt.launcher.ports import claim
from tests.launcher.stack import Answer, Place, Service, alive, until

pytestmark = pytest.mark.slow


def place_of(folder: Path, slow_model: dict[str, str]) -> Place:
    return Place(
        folder,
        online={"slow": slow_model},
        LLM_MODEL="slow",
        LLM_MODELs=["slow"],
        FSCHAT_OPENAI_API={"gateway_workers": 2},
    )


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, slow_model: dict[str, str]
) -> Iterator[Service]:
    with place_of(tmp_path_factory.mktemp("gateways"), slow_model).start() as service:
        yield service.ready()


def words(service: Service) -> list[list[str]]:
    """The command lines of the gateways."""
    return sorted(line.split() for line in service.children() if line.startswith("gateway"))


def after(line: list[str], flag: str) -> str:
    return line[line.index(flag) + 1]


def test_each_knows_its_number_and_what_they_share(service: Service) -> None:
    lines = words(service)
    assert [after(line, "--index") for line in lines] == ["0", "1"]
    assert {after(line, "--count") for line in lines} == {"2"}
    (folder,) = {after(line, "--runtime-dir") for line in lines}
    assert folder == service.place.running()["run_dir"]
    assert Path(folder).is_dir()
    logs = {path.name for path in service.place.logs.iterdir()}
    assert {"gateway.log", "gateway-(2).log"} <= logs
    assert "✓ gateway (2)  " in service.said


def test_both_take_connections(service: Service) -> None:
    pids = set(service.roles("gateway"))
    with contextlib.ExitStack() as held:
        for _ in range(40):
            address = ("127.0.0.1", service.place.gateway)
            held.enter_context(socket.create_connection(address))
        until(lambda: pids == {pid for pid in pids if accepted(service) & sockets(pid)}, "so")
    answers = [Answer(service, "slow") for _ in range(4)]
    assert all(answer.whole() for answer in answers)


def accepted(service: Service) -> set[str]:
    """The open connections to the gateways' port, at their end."""
    port = f":{service.place.gateway:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return {row[9] for row in rows if row[1].endswith(port) and row[3] == "01"}


def sockets(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        # One may be closed meanwhile.
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(path)
            found |= {link[8:-1]} if link.startswith("socket:[") else set()
    return found


def test_one_that_dies_is_started_again_and_the_other_goes_on(service: Service) -> None:
    first, second = service.roles("gateway")
    os.kill(first, signal.SIGKILL)
    # Its port is closed when all of its threads have gone, which is when its parent is told.
    service.expect("was killed by signal 9")
    assert second in service.roles("gateway")
    assert service.status("slow") == 200
    until(lambda: len(service.roles("gateway")) == 2, "it is started again")
    service.expect(f"http://127.0.0.1:{service.place.gateway}/v1 again")
    assert second in service.roles("gateway")


def test_other_service_on_the_same_port_is_told(
    service: Service, tmp_path: Path, slow_model: dict[str, str]
) -> None:
    other = place_of(tmp_path, slow_model)
    other.values["FSCHAT_OPENAI_API"]["port"] = service.place.gateway
    other.write()
    with other.start() as second:
        assert second.wait() == 1
    assert f"127.0.0.1:{service.place.gateway}" in second.said
    assert 'FSCHAT_OPENAI_API["port"]' in second.said
    assert len(second.lines) == 1
    assert service.status("slow") == 200


def test_service_that_begins_to_start_on_the_same_port_is_told(
    tmp_path: Path, slow_model: dict[str, str]
) -> None:
    place = place_of(tmp_path, slow_model)
    with claim(Listen("127.0.0.1", place.gateway, "")), place.start() as service:
        assert service.wait() == 1
    assert "another launcher" in service.said
    with socket.create_server(("127.0.0.1", place.gateway)), place.start() as service:
        assert service.wait() == 1
    assert "cannot listen on" in service.said
    assert not list((tmp_path / "data" / "run").iterdir())


def test_stop_drains_both(service: Service) -> None:
    pids = service.roles("gateway")
    answers = [Answer(service, "slow") for _ in range(6)]
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert all(answer.whole() for answer in answers)
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(httpx.ConnectError):
        service.status("slow")
