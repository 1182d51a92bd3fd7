"""Workers that are killed or stand still under load, and a controller that is killed."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.load import load, report
from tests.support.processes import Process
from tests.support.service import AUTH, Service, serving, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("service")
    with serving(folder, FSCHAT_MODEL_WORKERS={"tiny-chat": {"replicas": 2}}) as found:
        yield found


async def test_a_killed_worker_costs_no_plain_request(service: Service) -> None:
    await service.expect(2)
    async with load(service.gateway, tokens=150) as clients:
        await clients.served(10)
        victim = service.children("engine")[0]
        place = number(service, victim)
        busy = await at_work(service, victim)
        # More may have come since: at most as many as it works on at a time.
        most = max(worker["limit"] for worker in service.workers())
        victim.send(signal.SIGKILL)
        killed = time.monotonic()
        await until(lambda: not victim.alive and len(service.children("engine")) == 2, 60)
        restarted = time.monotonic() - killed
        # The table may list it all the while: what counts is that it answers.
        await until(lambda: service.health(place)["status"] == "ok", 60)
        back = time.monotonic() - killed
        await service.expect(2)
        await clients.served(20)
    assert victim not in service.children("engine")
    assert all(worker["running"] == 0 for worker in await settled(service))
    report("kill -9 worker", [clients], busy=busy, restarted=restarted, back=back)
    assert clients.bad("error event") == []
    assert clients.count(stream=False).keys() == {"ok"}
    assert clients.count(since=killed + back).keys() == {"ok"}
    assert clients.count(stream=True)["error event"] <= most


async def at_work(service: Service, process: Process, least: int = 3) -> int:
    """Waits until a worker has requests in work; how many."""
    place = number(service, process)
    found = 0

    def busy() -> bool:
        nonlocal found
        found = service.health(place)["running"]
        return found >= least

    await until(busy, 60)
    return found


def number(service: Service, worker: Process) -> int:
    """Which of the service's workers a process is."""
    return int(worker.argv[-1]) - service.port - 2


async def settled(service: Service) -> list[dict[str, int]]:
    """The workers' rows, once their beats tell of the load's end."""
    await until(lambda: not any(worker["queue_length"] for worker in service.workers()), 60)
    return service.workers()


async def test_a_worker_that_stands_still_is_left_out_and_comes_back(service: Service) -> None:
    await service.expect(2)
    async with load(service.gateway, tokens=150) as clients:
        await clients.served(10)
        victim = service.children("engine")[0]
        busy = await at_work(service, victim)
        victim.send(signal.SIGSTOP)
        try:
            left = await until(lambda: len(service.workers()) == 1, 60)
            await service.expect(1)
            await clients.served(20)
        finally:
            victim.send(signal.SIGCONT)
        back = await service.expect(2)
        healed = time.monotonic()
        await clients.served(20)
    report("SIGSTOP worker", [clients], busy=busy, left=left, back=back)
    assert victim in service.children("engine"), "nobody killed it"
    assert clients.bad("error event") == []
    assert clients.count(stream=False).keys() == {"ok"}
    assert clients.count(since=healed).keys() == {"ok"}


async def test_a_killed_controller_costs_nothing(service: Service) -> None:
    await service.expect(2)
    (controller,) = service.children("controller")
    async with load(service.gateway) as clients:
        await clients.served(20)
        controller.send(signal.SIGKILL)
        killed = time.monotonic()
        await until(lambda: len(service.workers()) == 2, 60)
        registered = time.monotonic() - killed
        await clients.served(60)
    assert service.children("controller") != [controller]
    report("kill -9 controller", [clients], registered=registered)
    assert clients.bad() == []
    await follows(service)


async def follows(service: Service) -> None:
    """Whether the gateway hears of changes at the controller."""
    await service.expect(2)
    worker = service.workers()[0]["address"]
    for drain, replicas in ((True, 1), (False, 2)):
        body = {"worker_name": worker, "drain": drain}
        httpx.post(f"{service.controller}/drain_worker", json=body, headers=AUTH, timeout=20)
        await service.expect(replicas)
