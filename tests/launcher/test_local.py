"""Starts that fail, stops in the middle, a launcher that is killed: all with real processes."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.stack import Answer, Place, alive, until

pytestmark = pytest.mark.slow

LLM_API = "dev_opsgpt/service/llm_api.py"


@pytest.fixture
def online_only(tmp_path: Path, slow_model: dict[str, str]) -> Place:
    """One slow online model, nothing local."""
    return Place(tmp_path, online={"slow": dict(slow_model)}, LLM_MODEL="slow", LLM_MODELs=["slow"])


def test_sigterm_lets_a_stream_in_flight_finish(online_only: Place) -> None:
    with online_only.start() as service:
        service.ready()
        answer = Answer(service, "slow")
        service.signal(signal.SIGTERM)
        service.expect("stopping; answers in flight get up to 15 s")
        assert service.wait() == 0
        answer.join(30)
    assert answer.lines[-2:] == ["data: [DONE]", ""]
    assert sum("w" in line for line in answer.lines) >= 10


def test_second_ctrl_c_stops_at_once(online_only: Place) -> None:
    # So many words that the answer ends by the signal only.
    online_only.values["ONLINE_LLM_MODEL"]["slow"]["version"] = "m-200"
    online_only.write()
    with online_only.start() as service:
        service.ready()
        answer = Answer(service, "slow")
        pids = list(service.children().values())
        service.signal(signal.SIGINT)
        service.expect("stopping")
        service.signal(signal.SIGINT)
        assert service.wait() == 0
        answer.join(30)
    assert "data: [DONE]" not in answer.lines
    assert not any(alive(pid) for pid in pids)


def test_killed_launcher_leaves_no_orphan(tmp_path: Path, slow_model: dict[str, str]) -> None:
    place = Place(tmp_path, online={"slow": slow_model})
    with place.start() as service:
        service.ready()
        pids = list(service.children().values())
        assert len(pids) == 4
        service.signal(signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in pids), "all children are gone")
        # What the dead launcher has left behind is no running service.
        with place.start() as second:
            second.ready()


def test_launcher_killed_while_a_model_loads_leaves_no_orphan(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.start() as service:
        pid = until(lambda: service.child("engine"), "the engine's process")
        service.signal(signal.SIGKILL)
        until(lambda: not alive(pid), "the loading child is gone")


def test_port_in_use_is_one_clear_line_and_starts_nothing(online_only: Place) -> None:
    with socket.create_server(("127.0.0.1", online_only.gateway)), online_only.start() as service:
        assert service.wait() == 1
    (line,) = service.lines
    assert f"127.0.0.1:{online_only.gateway}" in line
    assert 'FSCHAT_OPENAI_API["port"]' in line
    assert not online_only.logs.exists()


def test_one_model_that_cannot_load_leaves_the_others_alone(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model")
    models = {name: {"local_model_path": path} for name, path in local(bad).items()}
    place = Place(tmp_path, LLM_MODELs=["tiny-chat", "bad"], llm_model_dict=models)
    with place.start() as service:
        service.ready()
        assert "✗ bad failed: " in service.said
        assert service.ask(max_tokens=4).status_code == 200
        failed = [line for line in service.lines if line.startswith("bad ")]
        assert "failed: " in failed[0]


def local(bad: Path) -> dict[str, str]:
    return {"tiny-chat": "tiny-chat.gguf", "bad": str(bad)}


def test_start_fails_where_no_model_can_load(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model")
    models = {"bad": {"local_model_path": str(bad)}}
    place = Place(tmp_path, LLM_MODEL="bad", LLM_MODELs=["bad"], llm_model_dict=models)
    with place.start() as service:
        assert service.wait() == 1
    assert "No model could be started" in service.said


def test_quiet_says_one_line(online_only: Place) -> None:
    with online_only.start("--quiet") as service:
        service.expect("ready: ")
        assert service.lines == [f"ready: {online_only.base_url}: slow (ready)\n"]


def test_bad_configuration_is_told_in_lines(tmp_path: Path) -> None:
    place = Place(tmp_path, FSCHAT_OPENAI_API={"port": "many"})
    with place.start() as service:
        assert service.wait() == 1
    assert 'FSCHAT_OPENAI_API["port"]' in service.said
    assert "Traceback" not in service.said


def test_gpt_in_the_main_models_name_starts_no_local_engine(
    tmp_path: Path, slow_model: dict[str, str]
) -> None:
    online: dict[str, Any] = {"gpt-slow": slow_model}
    place = Place(tmp_path, online=online, LLM_MODEL="gpt-slow", LLM_MODELs=["gpt-slow"])
    with place.start() as service:
        service.ready()
        assert service.child("engine") is None
        assert set(service.models()) == {"gpt-slow"}


def test_parts_started_one_by_one_find_each_other(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.start("-o", script=LLM_API) as servers:
        servers.ready()
        assert sorted(line.split()[0] for line in servers.children()) == ["controller", "gateway"]
        with place.start("-m", "-n", "tiny-chat", script=LLM_API) as worker:
            worker.ready()
            assert [line.split()[0] for line in worker.children()] == ["engine"]
            until(lambda: servers.ask(max_tokens=4).status_code == 200, "an answer")
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
        assert servers.models() == {}


def test_worker_joins_a_controller_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = Place(tmp_path / "a"), Place(tmp_path / "b")
    first.environ["OPSGPT_SECRET"] = second.environ["OPSGPT_SECRET"] = os.urandom(16).hex()
    url = f"http://127.0.0.1:{first.controller}"
    with first.start("-o", script=LLM_API) as servers:
        servers.ready()
        with second.start("--llm-api", "-c", url, "-n", "tiny-chat", script=LLM_API) as worker:
            worker.ready()
            assert sorted(line.split()[0] for line in worker.children()) == ["engine", "gateway"]
            assert servers.models() == {"tiny-chat": f"http://127.0.0.1:{second.worker}"}
            assert worker.ask(max_tokens=4).status_code == 200
