"""A gateway that starts in front of many registered replicas: when it serves all of them, what
their beats cost while nobody asks, and whether requests reach all."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import msgspec
import uvloop

from benchmarks import many
from benchmarks.cluster import Cluster
from benchmarks.contender import MODEL
from benchmarks.load import request_body
from benchmarks.processes import Process, cpu_seconds, free_port, resident_bytes
from benchmarks.streams import SPARE_FILES, allow_files
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.transport.client import Client, Origin

SETTLE = 3.0
CALLERS = 32
REQUESTS_EACH = 10
MEBIBYTE = 2**20
# Every policy would do; one that looks at the prompt would send this one prompt to a few.
SETTINGS = MappingProxyType(
    {
        "FSCHAT_CONTROLLER": {"dispatch_method": "round_robin"},
        "FSCHAT_OPENAI_API": {"usage": False},
    }
)


class ReplicaFigures(msgspec.Struct, frozen=True):
    """With so many ``replicas``: seconds until the controller knew all of them (from the start of
    the process that beats for them), and until a gateway started then ``served`` them all; memory;
    CPU time in per cent of one core while nobody asks; how many were ``reached`` by ten requests
    for each, the ``least`` and the ``most`` that one of these got."""

    replicas: int
    registered: float
    served: float
    gateway_mebibytes: float
    controller_mebibytes: float
    gateway_cpu: float
    controller_cpu: float
    reached: int
    least: int
    most: int
    failed: int


def measure(
    folder: Path, *, count: int, seconds: int, say: Callable[[str], None]
) -> ReplicaFigures:
    """Raises ``StartFailed``, ``LoadFailed``."""
    folder.mkdir(parents=True)
    allow_files(4 * count + SPARE_FILES)
    with ExitStack() as stack:
        workers = _start_workers(folder, count, stack)
        cluster = Cluster(folder, SETTINGS)
        stack.callback(cluster.stop)
        cluster.start_controller()
        say(f"{count:,} replicas register")
        started = time.perf_counter()
        argv = [sys.executable, "-m", "benchmarks.beats", cluster.controller, MODEL, *workers]
        cluster.run(argv, "beats")
        cluster.wait_for_workers(count)
        registered = time.perf_counter() - started
        say("a gateway starts")
        started = time.perf_counter()
        cluster.start_gateway()
        cluster.wait_for(MODEL, count)
        served = time.perf_counter() - started
        say("nobody asks")
        gateway, controller = cluster.gateway_pids(), cluster.controller_pids()
        idle = _idle([gateway, controller], seconds)
        say("everybody asks")
        reached, failed = uvloop.run(_ask_all(f"{cluster.gateway}/v1", REQUESTS_EACH * count))
        return ReplicaFigures(
            replicas=count,
            registered=registered,
            served=served,
            gateway_mebibytes=resident_bytes(gateway) / MEBIBYTE,
            controller_mebibytes=resident_bytes(controller) / MEBIBYTE,
            gateway_cpu=idle[0],
            controller_cpu=idle[1],
            reached=len(reached),
            least=min(reached.values(), default=0),
            most=max(reached.values(), default=0),
            failed=failed,
        )


def _start_workers(folder: Path, count: int, stack: ExitStack) -> list[str]:
    port, hosts = free_port(), many.addresses(count)
    argv = [sys.executable, "-m", "benchmarks.many", str(port), *hosts]
    process = Process(argv, folder / "workers.log")
    stack.callback(process.stop)
    process.wait_for(f"http://{hosts[-1]}:{port}/v1/models")
    return [f"http://{host}:{port}" for host in hosts]


def _idle(parts: Sequence[Sequence[int]], seconds: float) -> list[float]:
    """Each part's CPU time, in per cent of a core."""
    time.sleep(SETTLE)
    before = [cpu_seconds(pids) for pids in parts]
    time.sleep(seconds)
    return [
        (cpu_seconds(pids) - spent) * 100 / seconds
        for pids, spent in zip(parts, before, strict=True)
    ]


async def _ask_all(url: str, requests: int) -> tuple[Counter[str], int]:
    """Who answered how many, and how many requests failed."""
    origin = Origin(url)
    head = origin.head("POST", "/chat/completions", {"content-type": "application/json"})
    body = request_body(stream=False)
    reached: Counter[str] = Counter()
    failed = 0

    async with Client() as client:

        async def ask(count: int) -> None:
            nonlocal failed
            for _ in range(count):
                try:
                    response = await client.send(origin, head, body)
                    answer = msgspec.json.decode(await response.read())
                except (ApiError, msgspec.DecodeError):
                    failed += 1
                    continue
                if response.status == 200:
                    reached[many.address_in(answer["id"])] += 1
                else:
                    failed += 1

        await asyncio.gather(*(ask(requests // CALLERS) for _ in range(CALLERS)))
    return reached, failed
