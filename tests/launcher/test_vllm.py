import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx

from dev_opsgpt.config import Settings, load_settings
from dev_opsgpt.engines.vllm.options import VllmOptions
from dev_opsgpt.launcher.vllm import vllm_options
from tests.support.processes import gone
from tests.support.service import Service, serving, until
from tests.support.vllm_standin import install, model

MODEL = "tiny-chat"


def options(**worker: Any) -> VllmOptions:
    keys = {
        "VLLM_MODEL_DICT": {"fast": "owner/model"},
        "FSCHAT_MODEL_WORKERS": {"default": {"port": 20_002}, "fast": worker},
        "CLUSTER_SECRET": "s",
    }
    settings = Settings.model_validate(keys)
    return vllm_options(settings, settings.models_to_start(["fast"])[0], "http://c:1")


def test_what_a_model_of_vllm_is_started_with() -> None:
    made = options(
        model_names=["a", "b"],
        n_ctx=512,
        n_threads=2,
        gpus="0,1",
        engine_args={"dtype": "float32"},
        engine_env={"HF_TOKEN": "t"},
        vllm_python="/opt/vllm",
    )
    assert (made.path, made.names, made.context) == ("owner/model", ("a", "b"), 512)
    assert (made.threads, made.gpus, made.num_gpus) == (2, "0,1", None)
    assert (made.engine_args, made.environ) == ({"dtype": "float32"}, {"HF_TOKEN": "t"})
    assert (made.python, made.secret, made.controller) == ("/opt/vllm", "s", "http://c:1")
    assert "HF_TOKEN" not in repr(made)


def test_how_many_it_runs_at_once() -> None:
    assert options().limit == 256
    assert options(limit_worker_concurrency=5).limit == 5
    assert options(limit_worker_concurrency=5, engine_args={"max-num-seqs": 9}).limit == 9


def test_the_python_that_has_it() -> None:
    assert options().python is None
    assert (options(vllm_python="sh").python or "").endswith("/sh"), "a program by its name"
    assert Path(options(vllm_python="~/env/bin/python").python or "").is_absolute()


def test_a_python_beside_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    worker = {"default": {"vllm_python": "vllm-env"}}
    keys = {"VLLM_MODEL_DICT": {"fast": "owner/model"}, "FSCHAT_MODEL_WORKERS": worker}
    (folder / "local_config.json").write_text(json.dumps(keys))
    settings = load_settings(folder, {})
    made = vllm_options(settings, settings.models_to_start(["fast"])[0], "http://c:1")
    assert made.python == str(tmp_path / "vllm-env")


def test_pauses_grow() -> None:
    pause = options().pause
    assert [pause(1.0) for _ in range(3)] == [1.0, 2.0, 4.0]
    assert pause(3600.0) == 1.0


async def test_the_service_with_a_model_of_vllm(tmp_path: Path) -> None:
    """One hop: the worker stands still and is not missed. A release leaves nothing behind."""
    fields = {
        "llm_model_dict": {},
        "VLLM_MODEL_DICT": {MODEL: str(model(tmp_path / "model"))},
        "FSCHAT_MODEL_WORKERS": {MODEL: {"vllm_python": str(install(tmp_path / "standin"))}},
    }
    with serving(tmp_path, **fields) as service:
        await service.expect(1)
        [worker] = service.children("engine", MODEL)
        [guardian] = worker.children()
        [server] = guardian.children()
        worker.send(signal.SIGSTOP)
        try:
            assert await says(service, "a b") == "a b"
        finally:
            worker.send(signal.SIGCONT)
        assert "api_server.py:1] key ***" in service.logs()
        await service.release(MODEL)
        assert gone([worker, guardian, server], 30)


async def test_a_model_of_vllm_that_loads_when_it_is_needed(tmp_path: Path) -> None:
    """A client and an admin see what vLLM is at; idle it goes, with all its processes."""
    gate = tmp_path / "gate"
    worker = {
        "vllm_python": str(install(tmp_path / "standin")),
        "engine_args": {"hold": str(gate)},
        "keep_alive": 1,
    }
    fields = {
        "LLM_MODEL": "",
        "LLM_MODELs": [],
        "llm_model_dict": {},
        "VLLM_MODEL_DICT": {MODEL: str(model(tmp_path / "model"))},
        "FSCHAT_MODEL_WORKERS": {MODEL: worker},
    }
    with serving(tmp_path, **fields) as service:
        await until(lambda: shown(service)["status"] == "unloaded", 30)
        asked = asyncio.create_task(says(service, "a b"))
        half = {"phase": "loading the weights", "fraction": 0.5}
        await until(lambda: half.items() <= shown(service).get("progress", {}).items(), 30)
        # Now that it cannot be idle.
        [process] = service.children("engine", MODEL)
        [guardian] = process.children()
        [server] = guardian.children()
        gate.touch()
        assert await asked == "a b"
        await until(lambda: shown(service)["status"] == "unloaded", 30)
        assert await asyncio.to_thread(gone, [process, guardian, server], 30)
        assert service.workers() == []


def shown(service: Service) -> dict[str, Any]:
    """What clients are told of the model."""
    found = httpx.get(f"{service.gateway}/v1/models").json()["data"]
    return next((one for one in found if one["id"] == MODEL), {"status": "unknown"})


async def says(service: Service, text: str) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{service.gateway}/v1/chat/completions", json=body)
    return str(answer.json()["choices"][0]["message"]["content"])
