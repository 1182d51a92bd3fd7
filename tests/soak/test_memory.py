"""``make soak``: 100,000 requests through a real gateway, whose memory must not grow.

``SOAK_REQUESTS`` sets another number.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.soak.requests import Requests
from tests.support.ports import free_ports
from tests.support.processes import Process
from tests.support.service import ROOT, SECRET, until

pytestmark = pytest.mark.soak

TOTAL = int(os.environ.get("SOAK_REQUESTS", "100000"))
# Before them: until the database's cache, the allocator's arenas and the pools are as large as they
# get.
WARM_UP = max(5_000, TOTAL // 2)
# One object that is kept for each request would be more.
MOST_BYTES_A_REQUEST = 50


@dataclass(frozen=True)
class Sample:
    """What a process holds."""

    rss: int
    descriptors: int
    tasks: int
    objects: int

    def __str__(self) -> str:
        return (
            f"{self.rss / 1e6:.2f} MB, {self.descriptors} descriptors, {self.tasks} tasks, "
            f"{self.objects} objects"
        )


class Part:
    """One process of the stack."""

    def __init__(self, name: str, folder: Path, *argv: str) -> None:
        self.name = name
        self._counts = folder / f"{name}.json"
        self._log = (folder / f"{name}.log").open("wb")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.part", *argv],
            cwd=ROOT,
            env={
                **os.environ,
                "OPSGPT_CONFIG_DIR": str(folder),
                "OPSGPT_SECRET": SECRET,
                "SOAK_COUNTS": str(self._counts),
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    async def sample(self) -> Sample:
        """What it holds now."""
        self._counts.unlink(missing_ok=True)
        self.popen.send_signal(signal.SIGUSR1)
        await until(self._counts.exists, 10)
        counts = json.loads(self._counts.read_text())
        process = Process.of(self.popen.pid)
        assert process is not None
        return Sample(process.rss, process.descriptors, **counts)

    def stop(self) -> None:
        self.popen.terminate()
        try:
            self.popen.wait(40)
        finally:
            self.popen.kill()
            self.popen.wait()
            self._log.close()


@contextmanager
def stack(folder: Path) -> Iterator[tuple[str, list[Part]]]:
    """A controller, a gateway and two workers, each in its own process; the gateway's URL."""
    port = free_ports(4)[0]
    gateway, controller = (f"http://127.0.0.1:{port + n}" for n in (0, 1))
    # By the default policy the gateway remembers prompts, in memory that fills up to a bound; tests
    # of the tree look after that.
    config = {"FSCHAT_CONTROLLER": {"dispatch_method": "shortest_queue"}}
    (folder / "local_config.json").write_text(json.dumps(config))
    parts: list[Part] = []
    try:
        command = ("controller", "--port", str(port + 1))
        parts.append(Part("controller", folder, *command))
        command = ("gateway", "--port", str(port), "--controller", controller)
        parts.append(Part("gateway", folder, *command))
        for number in (1, 2):
            command = ("worker", controller, str(port + 1 + number))
            parts.append(Part(f"worker-{number}", folder, *command))
        yield gateway, parts
    finally:
        for part in reversed(parts):
            part.stop()


async def measure(parts: list[Part]) -> dict[str, Sample]:
    """What all parts hold once nothing is in flight."""
    await asyncio.sleep(2)
    return {part.name: await part.sample() for part in parts}


async def test_100_000_requests(tmp_path: Path) -> None:
    with stack(tmp_path) as (url, parts):

        def replicas() -> bool:
            found = httpx.get(f"{url}/health").json()["models"].get("echo")
            return bool(found == 2)

        await until(replicas, 30)
        requests = Requests(url, random.Random(1))
        began = time.monotonic()
        await requests.send(WARM_UP)
        before = await measure(parts)
        await requests.send(TOTAL)
        after = await measure(parts)
        seconds = time.monotonic() - began
        requests.close()
    print(f"{WARM_UP + TOTAL} requests in {seconds:.0f} s: {dict(requests.done)}")
    for name in before:
        grown = (after[name].rss - before[name].rss) / TOTAL
        print(f"{name}: {before[name]} -> {after[name]}: {grown:.1f} bytes a request")
    assert requests.wrong == []
    for name, first in before.items():
        last = after[name]
        assert last.rss - first.rss < MOST_BYTES_A_REQUEST * TOTAL, name
        assert last.tasks <= first.tasks + 2, name
        # Connections kept for reuse come and go with the number of clients, not of requests.
        assert last.descriptors <= first.descriptors + 20, name
        assert last.objects <= first.objects + 2_000, name
