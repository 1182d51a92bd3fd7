"""A network that is slow, resets, swallows or cuts what passes between the gateway and one of
three workers, under load: no request is lost that could be answered by another worker."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.load import Load, load, report
from tests.support.service import AUTH, Service, serving, until
from tests.support.toxic import Toxic

pytestmark = pytest.mark.slow

# What a user would set for a model whose answers take a second or two (docs/resilience.md): none of
# the replicas that are well takes so long, however busy the machine is.
GATEWAY = {
    "read_timeout": 8.0,
    "routes": {"default": {"first_token_timeout": 4.0}},
    "breaker": {"open_for": 0.5, "open_for_most": 1.0},
}
TOKENS = 20
CLIENTS = 6


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("service")
    environ = {
        f"OPSGPT__FSCHAT_OPENAI_API__{key.upper()}": json.dumps(value)
        for key, value in GATEWAY.items()
    }
    workers = {"tiny-chat": {"replicas": 3}}
    with serving(folder, environ=environ, FSCHAT_MODEL_WORKERS=workers) as found:
        yield found


def post(service: Service, path: str, **body: object) -> None:
    answer = httpx.post(f"{service.controller}{path}", json=body, headers=AUTH, timeout=20)
    assert answer.status_code == 200, answer.text


@asynccontextmanager
async def between(service: Service) -> AsyncIterator[Toxic]:
    """A proxy between the gateway and the first worker, which is reached by no other way."""
    await service.expect(3)
    worker = service.worker(0)
    post(service, "/drain_worker", worker_name=worker)
    await service.expect(2)
    with Toxic(int(worker.rpartition(":")[2])) as proxy:
        post(
            service,
            "/register_worker",
            worker_name=proxy.url,
            check_heart_beat=False,
            worker_status={"model_names": ["tiny-chat"], "speed": 1, "queue_length": 0},
            opsgpt={"limit": 5, "beat_interval": 2.0},
        )
        try:
            await service.expect(3)
            yield proxy
        finally:
            post(service, "/deregister_worker", worker_name=proxy.url)
            post(service, "/drain_worker", worker_name=worker, drain=False)


def lost(clients: Load) -> list[object]:
    """Requests that failed before anything had been sent to their clients. A stream that had
    begun cannot be given to another worker: it ends with an error event."""
    return list(clients.bad("error event")) + [
        outcome for outcome in clients.bad() if outcome.how == "error event" and not outcome.stream
    ]


def trusted(service: Service) -> bool:
    """Whether the gateway sends requests to every worker."""
    page = httpx.get(f"{service.gateway}/metrics", headers=AUTH, timeout=20).text
    states = [line for line in page.splitlines() if line.startswith("opsgpt_breaker_state{")]
    return len(states) == 4 and not any(float(line.rpartition(" ")[2]) for line in states)


async def trouble(
    service: Service, proxy: Toxic, name: str, harm: Callable[[], None], seconds: float
) -> None:
    """Does harm for so long, and heals."""
    async with load(service.gateway, clients=CLIENTS, tokens=TOKENS) as clients:
        await clients.served(6)
        harm()
        began = time.monotonic()
        await asyncio.sleep(seconds)
        await clients.served(6)
        proxy.heal()
        healed = time.monotonic()
        await clients.served(12)
        back = await until(lambda: trusted(service), 60)
    during = [one for one in clients.outcomes if began <= one.began <= healed]
    report(name, [clients], during=len(during), broken=len(clients.bad()), back=back)
    assert lost(clients) == []
    assert clients.count(since=healed + 2.0).keys() <= {"ok"}


async def test_a_slow_network_costs_nothing(service: Service) -> None:
    async with between(service) as proxy:
        await trouble(service, proxy, "slow", lambda: proxy.slow(0.02, 400), 2.0)


async def test_resets_cost_no_request_that_had_not_begun(service: Service) -> None:
    async with between(service) as proxy:
        await trouble(service, proxy, "reset", proxy.reset, 2.0)


async def test_cut_answers_cost_no_request_that_had_not_begun(service: Service) -> None:
    async with between(service) as proxy:
        await trouble(service, proxy, "cut", lambda: proxy.cut_after(100), 1.0)
        await trouble(service, proxy, "cut and reset", lambda: proxy.cut_after(1500, reset=True), 1)


async def test_a_black_hole_costs_no_request_that_had_not_begun(service: Service) -> None:
    async with between(service) as proxy:
        await trouble(service, proxy, "black hole", proxy.black_hole, 10.0)
