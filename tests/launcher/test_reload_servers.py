"""Gateways and the controller take a changed configuration while they run, and no stream breaks.
The tests stand in the order in which they run."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.launcher.stack import Answer, Place, Service, alive, until
from tests.support.ports import free_ports

pytestmark = pytest.mark.slow


def served(service: Service, model: str) -> bool:
    """Whether a model answers, where there may be no gateway at the moment."""
    try:
        return service.status(model) == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, slow_model: dict[str, str]
) -> Iterator[Service]:
    online = {name: dict(slow_model) for name in ("slow", "other")}
    online["slow"]["version"] = "m-15"
    keys = {"LLM_MODEL": "slow", "LLM_MODELs": ["slow"]}
    place = Place(tmp_path_factory.mktemp("reload"), online=online, **keys)
    # Without a port of its own it can be there twice.
    del place.values["FSCHAT_MODEL_WORKERS"]["slow"]
    place.write()
    with place.start() as service:
        yield service.ready()


def test_more_gateways_and_fewer(service: Service) -> None:
    answer = Answer(service, "slow")
    service.place.values["FSCHAT_OPENAI_API"]["gateway_workers"] = 2
    assert 'FSCHAT_OPENAI_API["gateway_workers"]: in force' in service.place.reload()
    assert len(service.roles("gateway")) == 2
    assert answer.whole()
    # The kernel deals out connections: of so many each of the two gets some.
    answers = [Answer(service, "slow") for _ in range(8)]
    del service.place.values["FSCHAT_OPENAI_API"]["gateway_workers"]
    service.place.reload()
    assert all(answer.whole() for answer in answers)
    until(lambda: len(service.roles("gateway")) == 1, "one gateway is left")
    assert service.status("slow") == 200


def test_gateways_are_replaced_on_their_port(service: Service) -> None:
    answer = Answer(service, "slow")
    (pid,) = service.roles("gateway")
    service.place.values["FSCHAT_OPENAI_API"]["access_log"] = True
    said = service.place.reload()
    assert 'FSCHAT_OPENAI_API["access_log"]: in force, in new gateways' in said
    assert service.status("slow") == 200
    # The old one drains, and is another than the new one to all that asks for its number.
    numbers = [line.split()[line.split().index("--index") + 1] for line in gateways(service)]
    assert len(set(numbers)) == len(numbers)
    assert answer.whole()
    until(lambda: service.roles("gateway") not in ([], [pid]), "the new one is there")
    until(lambda: len(service.roles("gateway")) == 1, "the old one has ended")
    assert service.status("slow") == 200


def test_new_gateways_that_do_not_start_leave_the_old_ones(service: Service) -> None:
    place = service.place
    pids = service.roles("gateway")
    place.values["DATABASE_URL"] = "sqlite:////dev/null/in/a/file.db"
    said = place.reload(ok=False)
    assert "error: gateway does not start: " in said
    assert "error: the gateways that ran before go on as they were" in said
    assert "in force" not in said
    until(lambda: service.roles("gateway") == pids, "only the old one is left")
    assert service.status("slow") == 200
    # What was owed is made good with the next change.
    place.values["DATABASE_URL"] = f"sqlite:///{place.folder.parent}/other.db"
    assert "DATABASE_URL: in force, in new gateways" in place.reload()
    until(lambda: pids[0] not in service.roles("gateway"), "the old one has ended")
    assert (place.folder.parent / "other.db").exists()


def gateways(service: Service) -> list[str]:
    """The command lines of the gateways."""
    return [line for line in service.children() if line.startswith("gateway")]


def test_keys_are_in_force_at_once(service: Service) -> None:
    answer = Answer(service, "slow")
    (pid,) = service.roles("gateway")
    service.place.values["FSCHAT_OPENAI_API"]["api_keys"] = ["sesame"]
    # Nobody asks: the service sees for itself that the file has changed.
    service.place.write()
    until(lambda: service.status("slow") == 401, "the key is asked for")
    assert service.status("slow", "sesame") == 200
    assert answer.whole()
    assert service.roles("gateway") == [pid]
    del service.place.values["FSCHAT_OPENAI_API"]["api_keys"]
    service.place.reload()
    assert service.status("slow") == 200


def test_broken_configuration_is_refused_as_a_whole(service: Service) -> None:
    place = service.place
    place.values["ONLINE_LLM_MODEL"]["late"] = dict(place.values["ONLINE_LLM_MODEL"]["other"])
    place.values["FSCHAT_OPENAI_API"]["retries"] = "many"
    said = service.place.reload(ok=False)
    assert "refused" in said
    assert 'FSCHAT_OPENAI_API["retries"]' in said
    assert len(said.splitlines()) == 2
    service.expect('FSCHAT_OPENAI_API["retries"]')
    assert service.status("late") == 404
    # What is started again is started with what is in force, and not with what is in the files.
    (pid,) = service.roles("gateway")
    os.kill(pid, signal.SIGKILL)
    service.expect("gateway was killed by signal 9")
    until(lambda: service.roles("gateway") not in ([pid], []), "another gateway")
    until(lambda: served(service, "slow"), "an answer")
    del place.values["FSCHAT_OPENAI_API"]["retries"]
    assert "late: started" in service.place.reload()


def test_what_cannot_change_now_is_told(service: Service) -> None:
    controller = service.place.values["FSCHAT_CONTROLLER"]
    (controller["port"],) = free_ports(1)
    said = service.place.reload()
    assert 'FSCHAT_CONTROLLER["port"]: takes effect at the next start' in said
    assert service.models()
    controller["port"] = service.place.controller
    service.place.reload()


def test_attached_server_comes_and_goes(service: Service, slow_model: dict[str, str]) -> None:
    workers = service.place.values["FSCHAT_MODEL_WORKERS"]
    workers["far"] = {"openai_server": slow_model["api_base_url"]}
    assert "far: its attached server has changed" in service.place.reload()
    until(lambda: served(service, "far"), "an answer of the attached server")
    last = Answer(service, "far")
    del workers["far"]
    service.place.reload()
    assert "far" not in service.models()
    until(lambda: service.status("far") == 404, "it is unknown")
    assert last.whole()


def test_gateway_moves_to_another_port(service: Service) -> None:
    place = service.place
    answer = Answer(service, "slow")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        place.values["FSCHAT_OPENAI_API"]["port"] = busy.getsockname()[1]
        assert "cannot listen on" in service.place.reload(ok=False)
    place.gateway = place.values["FSCHAT_OPENAI_API"]["port"] = free_ports(1)[0]
    assert 'FSCHAT_OPENAI_API["port"]: in force, in new gateways' in service.place.reload()
    assert place.running()["gateway"] == f"http://127.0.0.1:{place.gateway}"
    assert service.status("slow") == 200
    assert answer.whole()
    until(lambda: len(service.roles("gateway")) == 1, "the old gateway has ended")


def test_controller_keeps_its_table_under_other_options(service: Service) -> None:
    before = service.models()
    pid = service.child("controller")
    body: dict[str, Any] = {
        "worker_name": "http://127.0.0.1:9",
        "check_heart_beat": False,
        "worker_status": {"model_names": ["m"], "speed": 1, "queue_length": 0},
    }
    url = service.place.running()["controller"] + "/register_worker"
    assert httpx.post(url, json=body, trust_env=False).status_code == 401
    section = service.place.values["FSCHAT_CONTROLLER"]
    section |= {"dispatch_method": "round_robin", "fastchat_workers": ["http://127.0.0.1:9"]}
    service.place.reload()
    # An address that is allowed now is let in as far as a look at it, and nobody is there.
    assert httpx.post(url, json=body, trust_env=False).status_code != 401
    assert before.items() <= service.models().items()
    assert service.child("controller") == pid


def test_sigterm_ends_everything_and_leaves_nothing(service: Service) -> None:
    pids = list(service.children().values())
    run = Path(service.place.running()["run_dir"])
    assert run.parent == service.place.folder.parent / "data" / "run"
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert not any(alive(pid) for pid in pids)
    assert not list(run.parent.iterdir())
    done = service.place.opsgpt("reload")
    assert done.returncode == 1
    assert "No service of this configuration is running." in done.stderr
