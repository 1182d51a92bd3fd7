"""A worker with vLLM beside it, in the whole stack: one hop, one life after another, no orphan. A
small program stands in vLLM's place; ``tests/vllm`` does the like with the real one."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev_opsgpt.engines.vllm.engine import VllmEngine
from dev_opsgpt.protocol.direct import direct_key
from dev_opsgpt.worker.engine import EngineError, Hosted
from tests.support.processes import Process, gone
from tests.support.stack import SECRET, Stack, running

from .conftest import Make

AUTH = {"authorization": f"Bearer {SECRET}"}


async def say(stack: Stack, text: str, **fields: Any) -> httpx.Response:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
    return await stack.client.post("/v1/chat/completions", json=body)


async def who(stack: Stack) -> dict[str, Any]:
    """What the server says of its own process."""
    answer = (await say(stack, "who")).json()["choices"][0]["message"]["content"]
    found: dict[str, Any] = json.loads(answer)
    return found


def group(number: int) -> list[Process]:
    """The living processes of a process group."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := Process.of(int(entry))) is not None:
            try:
                same = os.getpgid(process.pid) == number
            except ProcessLookupError:
                continue
            found += [process] if same else []
    return found


async def test_the_gateway_asks_vllm_itself(make: Make) -> None:
    engine = make()
    assert isinstance(engine, Hosted)
    async with running({"echo": [engine]}, worker={"limit": 1, "queue_size": 0}) as stack:
        # Through the worker, whose limit is one, the second would be refused.
        answers = await asyncio.gather(*(say(stack, "slow a b c") for _ in range(3)))
        assert [a.json()["choices"][0]["message"]["content"] for a in answers] == ["slow a b c"] * 3
        stream = await say(stack, "a b", stream=True)
        assert stream.text.count("data: ") == 4
        done = await stack.client.post("/v1/completions", json={"model": "echo", "prompt": "x y"})
        assert done.json()["choices"][0]["text"] == "x y"
        [worker] = stack.workers
        [row] = (await rows(stack))["workers"]
        assert row["kind"] == "opsgpt"
        assert row["address"] == worker.address
        assert row["direct_url"] not in (None, worker.address)
        assert (row["context_length"], row["limit"], row["json_output"]) == (512, 256, True)
        # What is the gateway's own goes to the worker: vLLM does not know these routes.
        asked = {"prompts": [{"model": "echo", "prompt": "a b c", "max_tokens": 10}]}
        told = (await stack.client.post("/api/v1/token_check", json=asked)).json()
        assert told["prompts"][0] == {"fits": True, "tokenCount": 3, "contextLength": 512}


async def rows(stack: Stack) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{stack.controller_url}/list_workers", headers=AUTH)
    found: dict[str, Any] = answer.json()
    return found


async def test_only_who_has_the_key_is_let_in(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPSGPT_SECRET", SECRET)
    monkeypatch.setenv("MODEL_KEY", SECRET)
    caplog.set_level(logging.INFO)
    engine = make(environ={"HF_TOKEN": "hf_tokentoken"})
    async with running({"echo": [engine]}) as stack:
        [row] = (await rows(stack))["workers"]
        key = direct_key(SECRET, row["direct_salt"])
        assert key not in json.dumps(row)
        async with httpx.AsyncClient(base_url=row["direct_url"]) as client:
            assert (await client.get("/health")).status_code == 200
            for path in ("/v1/models", "/metrics", "/invocations", "/tokenize"):
                assert (await client.get(path)).status_code == 401
                assert (await client.get(path, headers=AUTH)).status_code == 401
            mine = {"authorization": f"Bearer {key}"}
            assert (await client.get("/v1/models", headers=mine)).status_code == 200
        told = await who(stack)
        assert key not in " ".join(told["argv"])
        assert key not in Path(f"/proc/{told['pid']}/cmdline").read_text()
        inside = told["environ"]
        assert (inside["VLLM_API_KEY"], inside["HF_TOKEN"]) == (key, "hf_tokentoken")
        assert SECRET not in "".join(inside.values()), "the cluster's secret stays here"
    assert "api_server.py:1] key *** sk-" in caplog.text, "its log is in ours"


async def test_errors_are_as_for_every_engine(make: Make) -> None:
    async with running({"echo": [make()]}) as stack:
        ours = await say(stack, "hi", temperature=9)
        assert ours.status_code == 400
        assert (ours.json()["error"]["param"], ours.json()["error"]["code"]) == (
            "temperature",
            "out_of_range",
        )
        its = await say(stack, "refuse")
        error = its.json()["error"]
        assert (its.status_code, error["type"]) == (400, "invalid_request_error")
        assert (error["param"], error["code"]) == ("temperature", "invalid_value")
        broken = (await say(stack, "break", stream=True)).text
        event = next(line for line in broken.splitlines() if '"error"' in line)
        assert json.loads(event.removeprefix("data: "))["error"]["code"] == "internal_error"


async def test_the_worker_answers_too(make: Make) -> None:
    async with running({"echo": [make()]}) as stack:
        [worker] = stack.workers
        async with httpx.AsyncClient(base_url=worker.address, headers=AUTH) as client:
            body = {"model": "echo", "messages": [{"role": "user", "content": "a b"}]}
            relayed = await client.post("/v1/chat/completions", json=body)
            assert relayed.json()["choices"][0]["message"]["content"] == "a b"
            refused = await client.post("/v1/chat/completions", json=body | {"n": 0})
            assert refused.json()["error"]["param"] == "n"
            asked = {"model": "echo", "prompt": "one two", "max_new_tokens": 5, "echo": False}
            frames = (await client.post("/worker_generate_stream", json=asked)).content
            last = json.loads(frames.rstrip(b"\0").split(b"\0")[-1])
            assert (last["text"], last["finish_reason"]) == ("one two ", "stop")
            vectors = await client.post("/worker_get_embeddings", json={"input": ["a", "bcd"]})
            assert vectors.json()["embedding"] == [[1.0], [3.0]]
            counted = await client.post("/count_token", json={"model": "echo", "prompt": "a b c"})
            assert counted.json()["count"] == 3
            details = await client.post("/model_details", json={"model": "echo"})
            assert details.json()["context_length"] == 512


async def test_load_is_vllm_s_own(make: Make) -> None:
    engine = make()
    async with running({"echo": [engine]}) as stack:
        [worker] = stack.workers
        async with httpx.AsyncClient(base_url=worker.address, headers=AUTH) as client:
            busy = [asyncio.create_task(say(stack, "slow " * 400, stream=True)) for _ in range(2)]
            async with asyncio.timeout(30):
                while (health := (await client.get("/health")).json())["running"] < 2:
                    await asyncio.sleep(0.02)
                status = (await client.post("/worker_get_status", json={})).json()
                assert status["queue_length"] == 2
                while (await rows(stack))["workers"][0]["running"] < 2:
                    await asyncio.sleep(0.05)
            assert health["status"] == "ok"
            page = (await client.get("/metrics", headers={"authorization": ""})).text
            sample = next(
                x for x in page.splitlines() if x.startswith("vllm:num_requests_running{")
            )
            assert f'model="echo",worker="{worker.address}",engine="0"' in sample
            through = await client.get("/metrics", headers={"x-forwarded-for": "1.2.3.4"})
            assert through.status_code == 200, "who shows the secret may read it from anywhere"
            del client.headers["authorization"]
            through = await client.get("/metrics", headers={"x-forwarded-for": "1.2.3.4"})
            assert through.status_code == 401
            assert not await engine.drained(0.05)
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
            assert await engine.drained(30)


async def test_others_are_asked_when_one_dies(make: Make) -> None:
    """The worker leaves the table, others are asked, and it is back with another key."""
    async with running({"echo": [make(), make()]}) as stack:
        before = {row["direct_salt"] for row in (await rows(stack))["workers"]}
        os.kill((await who(stack))["pid"], signal.SIGKILL)
        for _ in range(10):
            assert (await say(stack, "a b")).status_code == 200
        async with asyncio.timeout(30):
            while True:
                after = {row["direct_salt"] for row in (await rows(stack))["workers"]}
                if len(after) == 2 and after != before:
                    break
                await asyncio.sleep(0.05)
        for _ in range(4):
            assert (await say(stack, "a b")).status_code == 200


async def test_between_two_lives(make: Make) -> None:
    pauses: list[float] = []

    def pause(lived: float) -> float:
        pauses.append(lived)
        return 3.0

    engine = make(pause=pause)
    async with running({"echo": [engine]}) as stack:
        [worker] = stack.workers
        told = await who(stack)
        os.kill(told["pid"], signal.SIGKILL)
        await stack.expect(0)
        async with httpx.AsyncClient(base_url=worker.address, headers=AUTH) as client:
            health = await client.get("/health")
            assert (health.status_code, health.json()["status"]) == (503, "restarting")
            body = {"model": "echo", "messages": [{"role": "user", "content": "a"}]}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 503
            assert (await client.get("/metrics")).status_code == 503
        assert (await say(stack, "a")).status_code == 503
        await stack.expect(1)
        assert (await say(stack, "a")).status_code == 200
        assert len(pauses) == 1
        assert await asyncio.to_thread(gone, group(told["group"]), 30), (
            "its engine's process is gone with it"
        )


async def test_stopping_leaves_nothing(make: Make) -> None:
    engine = make()
    async with running({"echo": [engine]}) as stack:
        told = await who(stack)
        held = group(told["group"])
        assert len(held) >= 3, "the guardian, the server, its engine"
    assert await asyncio.to_thread(gone, held, 30)
    assert engine.direct is None


SIDECAR = """
import asyncio, sys
from pathlib import Path
from dev_opsgpt.engines.vllm.engine import VllmEngine
from dev_opsgpt.engines.vllm.options import VllmOptions

async def main():
    engine = VllmEngine(VllmOptions(path=Path(sys.argv[1]), names=("echo",), pause=lambda _: 1.0,
                                    python=sys.argv[2]))
    await engine.start()
    print(engine._keeper.server._process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_kill_9_of_the_worker_leaves_nothing(
    make: Make, standin: Path, tmp_path: Path
) -> None:
    make()
    argv = [sys.executable, "-c", SIDECAR, str(tmp_path / "model"), str(standin)]
    worker = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    try:
        assert worker.stdout is not None
        guardian = int((await asyncio.to_thread(worker.stdout.readline)).decode())
        held = group(guardian)
        assert len(held) >= 3
    finally:
        worker.kill()
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()
    assert await asyncio.to_thread(gone, held, 30)


async def test_kill_9_of_the_guardian_is_a_death_like_others(make: Make) -> None:
    async with running({"echo": [make()]}) as stack:
        told = await who(stack)
        held = group(told["group"])
        os.kill(told["group"], signal.SIGKILL)
        assert await asyncio.to_thread(gone, held, 30)
        async with asyncio.timeout(30):
            while (await say(stack, "a")).status_code != 200:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine_args": {"max_modell_len": 5}}, 'did you mean "max_model_len"?'),
        ({"engine_args": {"port": 5}}, "the port is a free one"),
        ({"engine_args": {"dtype": "int3"}}, "must be one of auto, float32, bfloat16, not 'int3'"),
        ({"engine_args": {"die": "value"}}, "vLLM: the model is too odd, api_key=***"),
        ({"engine_args": {"die": "memory"}}, "out of memory: No available memory for the cache"),
        ({"engine_args": {"die": "silent"}}, "it ended with code 3; its last words: "),
        (
            {"engine_args": {"max_model_len": "many"}},
            "argument --max-model-len: invalid parse value: 'many'",
        ),
        ({"path": Path("/nowhere/model")}, "there is no model at /nowhere/model"),
        ({"python": "/nowhere/python"}, "there is no Python at /nowhere/python"),
        ({"python": sys.executable}, "has no vLLM; make an environment for it"),
        ({"python": "/bin/false"}, "/bin/false does not run"),
        ({"device": "cuda"}, "is built for cpu"),
    ],
    ids=str,
)
async def test_one_line_says_why_it_does_not_start(
    make: Make, options: dict[str, Any], says: str
) -> None:
    engine = make(**options)
    with pytest.raises(EngineError) as caught:
        await engine.start()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "verysecret" not in str(caught.value)


async def test_a_port_that_is_taken_is_replaced(make: Make, tmp_path: Path) -> None:
    engine: VllmEngine = make(engine_args={"die": "port-once"})
    await engine.start()
    assert (tmp_path / "model" / "tried").exists()
    assert engine.direct is not None


async def test_vllm_is_asked_once_for_its_arguments(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        with pytest.raises(EngineError, match="no such argument"):
            await make(cache=tmp_path / "kept", engine_args={"x": 1}).start()
    assert caplog.text.count("asking vLLM 9.8.7 for its arguments") == 1
