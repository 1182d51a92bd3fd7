"""The service with the real vLLM: one hop, deaths, releases, and nothing left of it."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev_opsgpt.engines.vllm.phases import STARTING, phase_of
from tests.support.processes import Process, gone
from tests.support.service import AUTH, Service, until
from tests.vllm.service import MODEL, START_TIMEOUT, ready, vllm_service

pytestmark = pytest.mark.vllm
# Without the tokens that end an answer it ends by its limit.
ENDLESS = {"0": -100, "2": -100}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with vllm_service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
async def service(running: Service) -> Service:
    await ready(running)
    return running


def body(text: str = "Hello! What is your name?", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


async def ask(service: Service, **fields: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=START_TIMEOUT) as client:
        return await client.post(
            f"{service.gateway}/v1/chat/completions", json=body(temperature=0, **fields)
        )


def sidecar(service: Service) -> Process:
    [found] = service.children("engine", MODEL)
    return found


def vllm_of(worker: Process) -> list[Process]:
    """All processes of the vLLM beside a worker: the guardian's group."""
    [guardian] = worker.children()
    found = []
    for entry in os.listdir("/proc"):
        process = Process.of(int(entry)) if entry.isdigit() else None
        with contextlib.suppress(ProcessLookupError):
            if process is not None and os.getpgid(process.pid) == guardian.pid:
                found.append(process)
    return found


async def test_one_hop(service: Service) -> None:
    """The gateway needs no worker to reach vLLM: the worker stands still, and is not missed."""
    worker = sidecar(service)
    worker.send(signal.SIGSTOP)
    try:
        answer = await ask(service, max_tokens=8)
    finally:
        worker.send(signal.SIGCONT)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 8
    [row] = service.workers()
    assert row["direct_url"] != row["address"]
    async with httpx.AsyncClient(base_url=row["direct_url"]) as client:
        for path in ("/v1/models", "/metrics", "/invocations", "/tokenize"):
            assert (await client.get(path)).status_code == 401


async def test_the_worker_speaks_fastchat(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.worker(0), headers=AUTH, timeout=60) as client:
        asked = {"model": MODEL, "prompt": "Hello", "max_new_tokens": 5, "temperature": 0}
        frames = (await client.post("/worker_generate_stream", json=asked)).content
        last = json.loads(frames.rstrip(b"\0").split(b"\0")[-1])
        assert last["error_code"] == 0
        assert last["usage"]["completion_tokens"] == 5
        count = await client.post("/count_token", json={"model": MODEL, "prompt": "Hello there"})
        assert count.json()["count"] > 0
        details = await client.post("/model_details", json={"model": MODEL})
        assert details.json()["context_length"] == 4096


async def test_figures(service: Service) -> None:
    before = await _counted(service)
    assert (await ask(service, max_tokens=4)).status_code == 200
    await until(lambda: asyncio.run(_counted(service)) > before, 10)


async def _counted(service: Service) -> float:
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"{service.worker(0)}/metrics")).text
    lines = [x for x in page.splitlines() if x.startswith("vllm:request_success_total{")]
    labels = f'{{model="{MODEL}",worker="{service.worker(0)}",'
    assert lines
    assert all(labels in line for line in lines)
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_a_stream_that_is_cut_and_a_life_after_it(service: Service) -> None:
    held = vllm_of(sidecar(service))
    old = service.workers()[0]["direct_salt"]
    endless = body("Tell me a long story.", stream=True, logit_bias=ENDLESS)
    text = b""
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", f"{service.gateway}/v1/chat/completions", json=endless) as answer,
    ):
        async for piece in answer.aiter_bytes():
            if not text:
                for process in held:
                    if "guardian.py" not in " ".join(process.argv):
                        process.send(signal.SIGKILL)
            text += piece
    event = text.rstrip().split(b"\n\n")[-1]
    told = json.loads(event.removeprefix(b"data: "))["error"]
    assert told["code"] == "upstream_disconnected", told
    assert await asyncio.to_thread(gone, held, 10)
    # The model is not unknown meanwhile.
    assert (await ask(service)).status_code in (200, 502, 503)
    await until(
        lambda: any(r["direct_salt"] not in (None, old) for r in service.workers()), START_TIMEOUT
    )
    await ready(service)
    assert (await ask(service, max_tokens=4)).status_code == 200
    assert "it is started again in 1 s" in service.logs()


async def test_kill_9_of_the_worker(service: Service) -> None:
    worker = sidecar(service)
    held = vllm_of(worker)
    assert len(held) >= 3
    worker.send(signal.SIGKILL)
    assert await asyncio.to_thread(gone, held, 15)
    await until(lambda: bool(service.children("engine", MODEL)), 30)
    await until(
        lambda: (
            any(row["address"] == service.worker(0) for row in service.workers())
            and service.health(0)["status"] == "ok"
        ),
        START_TIMEOUT,
    )
    await ready(service)
    assert (await ask(service, max_tokens=4)).status_code == 200


async def test_no_secret_in_the_logs(service: Service) -> None:
    logs = service.logs()
    assert "Application startup complete" in logs, "vLLM's own words are in the worker's log"
    assert AUTH["authorization"].removeprefix("Bearer ") not in logs


async def test_release_lets_answers_end_and_leaves_nothing(service: Service) -> None:
    held = vllm_of(sidecar(service))
    # So long that it is seen while it is answered.
    story = asyncio.create_task(ask(service, max_tokens=2000, logit_bias=ENDLESS))
    await until(lambda: service.health(0)["running"] == 1 or story.done(), 60)
    assert not story.done()
    await service.release(MODEL)
    answer = await story
    assert answer.json()["usage"]["completion_tokens"] == 2000
    assert await asyncio.to_thread(gone, held, 15)
    assert service.workers() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine_args": {"max_modell_len": 9}}, 'no such argument; did you mean "max_model_len"?'),
        ({"engine_args": {"dtype": "int3"}}, 'engine_args["dtype"] must be one of'),
        (
            {"engine_args": {"max_model_len": 10**7}},
            "vLLM: User-specified max_model_len (10000000)",
        ),
        ({"engine_args": {"quantization": "sorcery"}}, "Unknown quantization method: sorcery"),
        ({"engine_env": {"VLLM_CPU_KVCACHE_SPACE": "99999"}}, "vLLM: out of memory: Available"),
        ({"device": "cuda"}, "is built for cpu"),
    ],
    ids=str,
)
async def test_why_it_does_not_start(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with vllm_service(tmp_path, **options) as service:
        await until(lambda: says in said(service), START_TIMEOUT)


async def test_a_model_that_is_damaged(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in (Path(__file__).parents[2] / "llm_models" / MODEL).iterdir():
        data = file.read_bytes()
        part = data[:100_000] if file.suffix == ".safetensors" else data
        (damaged / file.name).write_bytes(part)
    with vllm_service(tmp_path, str(damaged)) as service:
        await until(lambda: "vLLM: SafetensorError: " in said(service), START_TIMEOUT)


async def test_a_request_loads_it_and_it_goes_when_it_was_idle(tmp_path: Path) -> None:
    with vllm_service(tmp_path, on_demand=True, keep_alive=2) as service:
        await until(lambda: shown(service)["status"] == "unloaded", 30)
        seen: list[str] = []

        def loaded() -> bool:
            seen.append(shown(service).get("progress", {}).get("phase", ""))
            return shown(service)["status"] == "loaded"

        asked = asyncio.create_task(ask(service, max_tokens=4))
        await until(loaded, START_TIMEOUT)
        answer = await asked
        assert answer.status_code == 200, answer.text
        assert STARTING in seen, "for most of the time it imports itself"
        # Its own words for what it does are understood.
        told = {phase.doing for line in service.logs().splitlines() if (phase := phase_of(line))}
        assert {"loading the weights", "warming up", "starting the server"} <= told
        held = vllm_of(sidecar(service))
        await until(lambda: shown(service)["status"] == "unloaded", 60)
        assert await asyncio.to_thread(gone, held, 15)
        assert service.workers() == []


def shown(service: Service) -> dict[str, Any]:
    """What clients are told of the model."""
    found = httpx.get(f"{service.gateway}/v1/models").json()["data"]
    return next((one for one in found if one["id"] == MODEL), {"status": "unknown"})


def said(service: Service) -> str:
    """The launcher's own words about what failed."""
    lines = service.output.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if not line.startswith(" "))
