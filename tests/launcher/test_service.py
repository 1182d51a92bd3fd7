"""One real service, from start to stop. The tests stand in the order in which they run."""

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.launcher.stack import Place, Service, until

pytestmark = pytest.mark.slow

ONLINE = ("slow", "other", "spare")


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, slow_model: dict[str, str]
) -> Iterator[Service]:
    online = {name: dict(slow_model) for name in ONLINE}
    place = Place(tmp_path_factory.mktemp("service"), online=online)
    with place.start() as service:
        yield service.ready()


def test_parts_start_in_order(service: Service) -> None:
    started = [line.split()[1] for line in service.lines if line.startswith("✓")]
    assert started[0] == "controller"
    assert sorted(started[1:]) == sorted([*ONLINE, "gateway", "tiny-chat"])


def test_closing_table_tells_models_and_addresses(service: Service) -> None:
    place = service.place
    assert f"OpenAI API   {place.base_url}" in service.said
    rows = {line.split()[0]: line.split()[1:] for line in service.lines if line.endswith("ready\n")}
    assert rows["tiny-chat"] == ["llama.cpp", f"http://127.0.0.1:{place.worker}", "ready"]
    assert rows["slow"][0] == "ExampleWorker"


def test_curl_line_can_be_pasted(service: Service) -> None:
    (line,) = (line for line in service.lines if line.startswith("curl "))
    done = subprocess.run(["sh", "-c", f"{line.strip()} -sS"], capture_output=True, text=True)
    assert '"assistant"' in done.stdout, done


def test_ready_means_ready(service: Service) -> None:
    answer = service.ask(max_tokens=8)
    assert answer.status_code == 200, answer.text


def test_secret_is_nowhere_but_in_the_run_file(service: Service) -> None:
    folder = Path(service.place.environ["XDG_RUNTIME_DIR"]) / "opsgpt"
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secret = service.place.running()["secret"]
    assert len(secret) >= 32
    assert secret not in service.said
    assert not any(secret in line for line in service.children())
    for log in service.place.logs.iterdir():
        assert secret not in log.read_text()


def test_second_start_says_that_one_runs(service: Service) -> None:
    done = service.place.command(str(Path(__file__).parents[2] / "start.py"))
    assert done.returncode == 1
    assert "running already" in done.stdout
    assert str(service.process.pid) in done.stdout
    assert service.place.base_url in done.stdout


def test_online_models_share_a_process(service: Service) -> None:
    assert sorted(line.split()[0] for line in service.children()) == [
        "controller",
        "engine",
        "gateway",
        "providers",
    ]


def test_released_online_model_leaves_its_neighbours_alone(service: Service) -> None:
    pid = service.child("providers")
    with httpx.stream(
        "POST",
        f"{service.place.base_url}/chat/completions",
        json={"model": "other", "messages": [{"role": "user", "content": "?"}], "stream": True},
        timeout=30,
        trust_env=False,
    ) as stream:
        lines = stream.iter_lines()
        next(lines)
        reply = service.controller("/release_worker", {"model_name": "spare"})
        assert reply["code"] == 200, reply
        assert "spare" not in service.models()
        assert "data: [DONE]" in list(lines)
    assert service.child("providers") == pid
    assert service.ask("other", stream=True).status_code == 200


def test_online_model_is_started_at_run_time(service: Service) -> None:
    reply = service.controller(
        "/release_worker",
        {"model_name": "other", "new_model_name": "spare", "keep_origin": True},
    )
    assert reply["code"] == 200, reply
    assert {"other", "spare"} <= set(service.models())
    until(lambda: service.ask("spare", stream=True).status_code == 200, "an answer")


def test_killed_engine_is_started_again(service: Service) -> None:
    pid = service.child("engine")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    service.expect("tiny-chat was killed by signal 9; starts again in 1 s")
    service.expect(f"tiny-chat  http://127.0.0.1:{service.place.worker} again")
    assert service.child("engine") != pid
    until(lambda: service.ask(max_tokens=4).status_code == 200, "an answer")


def test_local_model_is_replaced_by_a_fresh_one(service: Service) -> None:
    pid, address = service.child("engine"), service.models()["tiny-chat"]
    reply = service.controller(
        "/release_worker", {"model_name": "tiny-chat", "new_model_name": "tiny-chat"}
    )
    assert reply["code"] == 200, reply
    assert service.child("engine") != pid
    assert service.models()["tiny-chat"] != address
    until(lambda: service.ask(max_tokens=4).status_code == 200, "an answer")


def test_stopped_model_stays_stopped_until_it_is_started(service: Service) -> None:
    reply = service.controller("/release_worker", {"model_name": "tiny-chat"})
    assert reply["code"] == 200, reply
    assert service.child("engine") is None
    assert "tiny-chat" not in service.models()
    reply = service.controller(
        "/release_worker",
        {"model_name": "other", "new_model_name": "tiny-chat", "keep_origin": True},
    )
    assert reply["code"] == 200, reply
    until(lambda: service.ask(max_tokens=4).status_code == 200, "an answer")


def test_worker_that_is_released_by_hand_stays_stopped(service: Service) -> None:
    headers = {"authorization": f"Bearer {service.place.running()['secret']}"}
    url = f"{service.models()['tiny-chat']}/release"
    reply = httpx.post(url, json={}, headers=headers, trust_env=False)
    assert reply.json() == {"code": 200, "msg": "done"}
    until(lambda: service.child("engine") is None, "the engine's process has ended")
    assert "tiny-chat" not in service.models()
    reply = service.controller(
        "/release_worker",
        {"model_name": "other", "new_model_name": "tiny-chat", "keep_origin": True},
    )
    assert reply["code"] == 200, reply


def test_unknown_model_is_not_started(service: Service) -> None:
    body = {"model_name": "other", "new_model_name": "nobody", "keep_origin": True}
    reply = service.controller("/release_worker", body)
    assert reply["code"] == 500


def test_killed_controller_comes_back_and_is_heard(service: Service) -> None:
    pid = service.child("controller")
    assert pid is not None
    before = set(service.models())
    os.kill(pid, signal.SIGKILL)
    service.expect(f"controller  http://127.0.0.1:{service.place.controller} again")
    until(lambda: set(service.models()) == before, "all workers are back")
    until(lambda: service.ask(max_tokens=4).status_code == 200, "an answer")

    def stopped() -> bool:
        reply = service.controller("/release_worker", {"model_name": "spare"})
        return bool(reply["code"] == 200)

    until(stopped, "the launcher is connected again")


def test_sigterm_stops_everything(service: Service) -> None:
    pids = list(service.children().values())
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert service.lines[-1] == "· stopped\n"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not list((Path(service.place.environ["XDG_RUNTIME_DIR"]) / "opsgpt").iterdir())
