"""Models loaded on demand and by hand, with real processes and real commands."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.launcher.stack import Place, Service, until

GGUF = "tiny-chat.gguf"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models = {name: {"local_model_path": GGUF} for name in ("tiny-chat", "a", "b")}
    models["gone"] = {"local_model_path": "gone.gguf"}
    place = Place(
        tmp_path_factory.mktemp("loads"),
        llm_model_dict=models,
        MAX_LOADED_MODELS=3,
        workers={"b": {"load_on_demand": False}},
    )
    with place.start() as found:
        yield found.ready()


def listed(service: Service) -> dict[str, str]:
    found = httpx.get(f"{service.place.base_url}/models").json()["data"]
    return {model["id"]: model["status"] for model in found}


def run(service: Service, *words: str, ok: bool = True) -> str:
    done = service.place.opsgpt(*words)
    assert done.returncode == (0 if ok else 1), done
    return done.stdout if ok else done.stderr


def test_what_is_declared_is_shown_and_listed(service: Service) -> None:
    assert "is loaded by its first request" in service.said
    names = {"a": "unloaded", "gone": "unloaded", "tiny-chat": "loaded"}
    until(lambda: listed(service) == names, "the gateway knows")
    (row,) = (x.split() for x in run(service, "models", "--status").splitlines() if "tiny" in x)
    assert row[3] == "-" or int(row[3]) > 20, "no figure, or more than the file's 5 MiB"


def test_a_request_loads_a_model(service: Service) -> None:
    assert service.ask("a").status_code == 200
    assert listed(service)["a"] == "loaded"
    rows = run(service, "models", "--status").splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [
        ["a", "loaded"],
        ["b", "unloaded"],
        ["gone", "unloaded"],
        ["tiny-chat", "loaded"],
    ]
    assert service.ask("b").status_code == 404, "it loads by hand only"


def test_one_that_cannot_be_loaded_says_why(service: Service) -> None:
    answer = service.ask("gone")
    assert answer.status_code == 503
    assert "no such model file" in answer.json()["error"]["message"]
    assert "no such model file" in run(service, "load", "gone", ok=False)
    assert listed(service)["tiny-chat"] == "loaded", "the others are untouched"


def test_by_hand(service: Service) -> None:
    assert run(service, "load", "b") == "b serves\n"
    # The gateway hears of it a moment later.
    until(lambda: service.ask("b").status_code == 200, "an answer")
    assert run(service, "unload", "a") == "'a' unloaded\n"
    assert run(service, "scale", "b", "2") == "'b': 2 replicas\n"
    assert len(engines(service)) == 3
    assert run(service, "scale", "b", "1") == "'b': 1 replica\n"
    assert run(service, "unload", "b") == "'b' unloaded\n"
    assert "can load a model 'nobody'" in run(service, "load", "nobody", ok=False)
    assert len(engines(service)) == 1


def test_what_is_not_loaded_is_taken_out_of_service(service: Service) -> None:
    assert listed(service)["a"] == "unloaded"
    assert run(service, "release", "a") == "'a' is out of service\n"
    until(lambda: "a" not in listed(service), "it is listed no more")
    assert service.ask("a").status_code == 404
    rows = run(service, "models", "--status").splitlines()
    (row,) = (row.split(maxsplit=4) for row in rows if row.startswith("a "))
    assert row == ["a", "unloaded", "0", "-", "out of service"]
    assert len(engines(service)) == 1
    assert "no worker serves the model 'nobody'" in run(service, "release", "nobody", ok=False)
    assert run(service, "load", "a") == "a serves\n"
    assert run(service, "unload", "a") == "'a' unloaded\n"
    until(lambda: listed(service).get("a") == "unloaded", "requests load it again")


def test_one_whose_process_keeps_dying(service: Service) -> None:
    """Each time before it serves; the command ends when its launcher gives it up."""
    (kept,) = engines(service)
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(run, service, "load", "b", ok=False)
        while not loading.done():
            for pid in set(engines(service)) - {kept}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
    assert loading.result() == (
        "b could not be loaded: 'b' did not start: "
        "it keeps dying: its process was killed by signal 9\n"
    )
    assert engines(service) == [kept]


def test_a_load_goes_on_without_the_controller(service: Service) -> None:
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(run, service, "load", "b")
        until(lambda: len(engines(service)) == 2, "its process is there")
        pid = service.child("controller")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert loading.result() == "b serves\n"
    assert run(service, "unload", "b") == "'b' unloaded\n"


def test_a_changed_rule_is_in_force_at_once(service: Service) -> None:
    place = service.place
    workers: dict[str, Any] = place.values["FSCHAT_MODEL_WORKERS"]
    workers["b"] = {"keep_alive": 1}
    place.values["llm_model_dict"]["late"] = {"local_model_path": GGUF}
    said = place.reload()
    assert "b: when it is loaded is in force" in said
    assert "late: when it is loaded is in force" in said
    until(lambda: {"b", "late"} <= set(listed(service)), "they are listed")
    assert service.ask("b").status_code == 200
    assert service.ask("late").status_code == 200
    until(lambda: listed(service)["b"] == "unloaded", "it was idle")
    assert listed(service)["late"] == "loaded"


def test_a_new_controller_learns_what_is_loaded(service: Service) -> None:
    pid = service.child("controller")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    answers = [service.ask("a"), service.ask("late")]
    assert [answer.status_code for answer in answers] == [200, 200]

    def known() -> bool:
        done = service.place.opsgpt("models", "--status")
        rows = {row.split()[0]: row.split()[1] for row in done.stdout.splitlines()[1:]}
        return [rows.get(name) for name in ("a", "late", "tiny-chat")] == ["loaded"] * 3

    until(known, "the controller knows")
    assert len(engines(service)) == 3, "nothing was loaded twice"


def engines(service: Service) -> list[int]:
    return service.roles("engine")
