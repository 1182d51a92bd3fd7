"""Models loaded, unloaded, scaled and asked at random, with real processes: no request is lost, no
process or port or descriptor is left over, and never is more loaded than may be.

``CHAOS_SECONDS`` sets the length of the long walk (``make chaos``), ``CHAOS_SEED`` repeats its
choices.
"""

import asyncio
import os
import random
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service import AUTH, GGUF, Service, serving, until

NAMES = ("tiny-chat", "a", "b", "c")
MOST = 2
LEAST = 3
SECONDS = float(os.environ.get("CHAOS_SECONDS", "300"))
SEED = int(os.environ.get("CHAOS_SEED", random.randrange(1_000_000)))
# What a request may be told: there was no room in time, or its model was stopped in between.
PATIENT = {"no_room_for_model", "model_loading", "model_unavailable"}


class Walk:
    """Steps at random against one service; ``told`` counts what requests were told."""

    def __init__(self, service: Service, rng: random.Random) -> None:
        self.service = service
        self.rng = rng
        self.told: Counter[str] = Counter()
        self.most = 0
        self.client = httpx.AsyncClient(timeout=90, limits=httpx.Limits(max_connections=None))

    async def ask(self, model: str) -> None:
        """One request, streamed or not; it has a whole answer or a clear error."""
        stream = self.rng.random() < 0.5
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Who are you?"}],
            "max_tokens": self.rng.choice([1, 8, 60]),
            "stream": stream,
        }
        url = f"{self.service.gateway}/v1/chat/completions"
        answer = await self.client.post(url, json=body)
        if answer.status_code == 200 and (not stream or "data: [DONE]" in answer.text):
            self.told["answered"] += 1
            return
        text = answer.text
        code = next((code for code in PATIENT if f'"{code}"' in text), None)
        assert code is not None, f"{answer.status_code} {text}"
        self.told[code] += 1

    async def hang_up(self, model: str) -> None:
        """One request whose client does not wait."""
        task = asyncio.create_task(self.ask(model))
        await asyncio.sleep(self.rng.uniform(0, 0.5))
        if not task.done():
            task.cancel()
            self.told["hung up"] += 1
        await asyncio.gather(task, return_exceptions=True)

    async def by_hand(self, path: str, **body: Any) -> None:
        """Somebody unloads or scales a model; that may be refused."""
        answer = await self.client.post(f"{self.service.controller}{path}", json=body, headers=AUTH)
        assert answer.status_code == 200, answer.text
        self.told[f"{path} {answer.json().get('code', '')}"] += 1

    async def step(self) -> None:
        """Something happens."""
        model = self.rng.choice(NAMES)
        match self.rng.random():
            case x if x < 0.7:
                await self.ask(model)
            case x if x < 0.8:
                await self.hang_up(model)
            case x if x < 0.87:
                await self.by_hand("/unload_model", model_name=model)
            case x if x < 0.93:
                replicas = self.rng.choice([1, 2])
                await self.by_hand("/scale_model", model_name=model, replicas=replicas)
            case _:
                await asyncio.sleep(self.rng.uniform(0, 2))

    async def go(self, seconds: float) -> None:
        """Several walk at once, until something was answered too; meanwhile it is watched how much
        is loaded."""
        end = time.monotonic() + seconds

        async def one() -> None:
            while time.monotonic() < end or self.told["answered"] < LEAST:
                await self.step()

        watching = asyncio.create_task(self.watch())
        try:
            await asyncio.gather(*(one() for _ in range(4)))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self.client.aclose()

    async def watch(self) -> None:
        """Never are more processes there than may be loaded."""
        while True:
            self.most = max(self.most, len(self.service.children("engine")))
            await asyncio.sleep(0.05)


async def walked(folder: Path, seconds: float, seed: int) -> Counter[str]:
    with serving(
        folder,
        LLM_MODELs=[],
        LLM_MODEL="",
        llm_model_dict={name: {"local_model_path": GGUF} for name in NAMES},
        FSCHAT_MODEL_WORKERS={"default": {"keep_alive": 3.0, "n_ctx": 512}},
        MAX_LOADED_MODELS=MOST,
        environ={"OPSGPT__FSCHAT_OPENAI_API__ROUTES": '{"default": {"queue_timeout": 8}}'},
    ) as service:
        await until(lambda: _listed(service) == set(NAMES), 60)
        gateway, controller = service.children("gateway")[0], service.children("controller")[0]
        walk = Walk(service, random.Random(seed))
        await walk.ask("a")
        parts = (service.launcher, gateway, controller)
        before = [part.descriptors for part in parts]
        walk.told.clear()
        await walk.go(seconds)
        # What is not asked for any more goes, but for what was scaled by hand.
        for name in NAMES:
            body = {"model_name": name}
            httpx.post(f"{service.controller}/unload_model", json=body, headers=AUTH, timeout=60)
        await until(lambda: not service.children("engine"), 60)
        await until(lambda: {model["phase"] for model in _models(service)} == {"unloaded"}, 30)
        await until(lambda: not service.workers(), 30)
        assert walk.most <= MOST
        for port in range(service.port + 2, service.port + 10):
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", port))
        await until(lambda: _no_more(before, [part.descriptors for part in parts]), 30)
        assert [part.alive for part in parts] == [True] * 3
        return walk.told


def _models(service: Service) -> list[dict[str, Any]]:
    found = httpx.get(f"{service.controller}/models", headers=AUTH, timeout=20).json()["models"]
    return list(found)


def _listed(service: Service) -> set[str]:
    found = httpx.get(f"{service.gateway}/v1/models", timeout=20).json()["data"]
    return {model["id"] for model in found}


def _no_more(before: list[int], now: list[int]) -> bool:
    """A few connections are kept open for the next call."""
    return all(new <= old + 6 for old, new in zip(before, now, strict=True))


@pytest.mark.slow
async def test_a_short_walk(tmp_path: Path) -> None:
    told = await walked(tmp_path, 8.0, 7)
    assert told["answered"] >= LEAST, told


@pytest.mark.soak
async def test_a_long_walk(tmp_path: Path) -> None:
    print(f"CHAOS_SEED={SEED} CHAOS_SECONDS={SECONDS:g}")
    told = await walked(tmp_path, SECONDS, SEED)
    print(told)
    assert told["answered"] > SECONDS / 10
