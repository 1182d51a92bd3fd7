"""Five minutes of random trouble: ``make chaos``.

``CHAOS_SECONDS`` sets another length, ``CHAOS_SEED`` repeats a run's choices.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.load import load, report
from tests.support.processes import Process
from tests.support.service import GGUF, Service, serving, until

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("CHAOS_SECONDS", "300"))
SEED = int(os.environ.get("CHAOS_SEED", random.randrange(1_000_000)))


class Trouble:
    """What can befall a service with two replicas of "tiny-chat" and one of "twin". Each leaves it
    whole again; at any time one replica of "tiny-chat" is well."""

    def __init__(self, service: Service, rng: random.Random) -> None:
        self._service = service
        self._rng = rng
        self._twin = True

    async def kill_worker(self) -> None:
        """Kill -9 of a replica."""
        victim = self._rng.choice(self._replicas())
        port = victim.argv[-1]
        victim.send(signal.SIGKILL)
        await until(lambda: not victim.alive, 5)
        await self._whole(port)

    async def freeze_worker(self) -> None:
        """A replica stands still for a while."""
        victim = self._rng.choice(self._replicas())
        victim.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(self._rng.uniform(0.5, 12))
        finally:
            victim.send(signal.SIGCONT)
        await self._whole(victim.argv[-1])

    async def kill_controller(self) -> None:
        """Kill -9 of the controller."""
        (victim,) = self._service.children("controller")
        victim.send(signal.SIGKILL)
        await self._registered()

    async def freeze_controller(self) -> None:
        """The controller stands still for a while; nobody is held to be dead for it."""
        (victim,) = self._service.children("controller")
        victim.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(self._rng.uniform(0.5, 12))
        finally:
            victim.send(signal.SIGCONT)
        await self._registered()

    async def kill_both(self) -> None:
        """Kill -9 of the controller and of a replica at the same time."""
        (controller,) = self._service.children("controller")
        controller.send(signal.SIGKILL)
        await self.kill_worker()
        await self._registered()

    async def release(self) -> None:
        """The other model is stopped, or started again."""
        self._twin = not self._twin
        if self._twin:
            await self._service.release("tiny-chat", "twin", keep=True)
        else:
            await self._service.release("twin")
        await self._service.expect(int(self._twin), "twin")

    def _replicas(self) -> list[Process]:
        return self._service.children("engine", "tiny-chat")

    async def _whole(self, port: str) -> None:
        """The replica on a port answers, and the gateway uses both."""
        number = int(port) - self._service.port - 2
        await until(lambda: self._service.health(number)["status"] == "ok", 40)
        await self._service.expect(2)

    async def _registered(self) -> None:
        await until(lambda: len(self._service.workers()) == 2 + self._twin, 40)
        # The launcher looks for its controller each second.
        await asyncio.sleep(3)


async def test_random_trouble(tmp_path: Path) -> None:
    names = ("tiny-chat", "twin")
    rng = random.Random(SEED)
    done: Counter[str] = Counter()
    with serving(
        tmp_path,
        LLM_MODELs=list(names),
        llm_model_dict={name: {"local_model_path": GGUF} for name in names},
        FSCHAT_MODEL_WORKERS={"tiny-chat": {"replicas": 2}},
    ) as service:
        await service.expect(2)
        await service.expect(1, "twin")
        trouble = Trouble(service, rng)
        kinds = (
            trouble.kill_worker,
            trouble.freeze_worker,
            trouble.kill_controller,
            trouble.freeze_controller,
            trouble.kill_both,
            trouble.release,
        )
        (gateway,) = service.children("gateway")
        lasting = (service.launcher, gateway)
        before = [process.descriptors for process in lasting]
        end = time.monotonic() + SECONDS
        async with (
            load(service.gateway, clients=6, tokens=300) as clients,
            load(service.gateway, clients=2, model="twin", tokens=40) as twins,
        ):
            while time.monotonic() < end:
                kind = rng.choice(kinds)
                await asyncio.sleep(rng.uniform(0, 3))
                await kind()
                done[kind.__name__] += 1
            await clients.served(20)
        await asyncio.sleep(1)
        after = [process.descriptors for process in lasting]
    report(f"random trouble (seed {SEED})", [clients, twins], descriptors=(before, after), **done)
    lost = [o for o in clients.bad() if not (o.stream and o.how == "error event")]
    assert lost == []
    assert [o for o in twins.bad() if o.status not in (404, 503)] == []
    assert all(now <= then + 20 for then, now in zip(before, after, strict=True))
