"""Models that are replaced, stopped and started under load."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.load import Load, load, report
from tests.support.service import GGUF, Service, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """ "tiny-chat" is replaced by "twin" and back; "bystander" has nothing to do with it."""
    folder: Path = tmp_path_factory.mktemp("service")
    names = ("tiny-chat", "twin", "bystander")
    with serving(
        folder,
        LLM_MODELs=["tiny-chat", "bystander"],
        llm_model_dict={name: {"local_model_path": GGUF} for name in names},
    ) as found:
        yield found


def missed(clients: Load) -> list[object]:
    """What a release may not do to a client: anything but a clear "not here (any more)", 503
    while the model drains and 404 after it."""
    return [o for o in clients.bad() if o.how != "refused" or o.status not in (404, 503)]


async def replace(service: Service, clients: Load, old: str, new: str) -> None:
    """Replaces a model; its clients ask for the new one as soon as it is there."""
    release = asyncio.create_task(service.release(old, new))
    await service.expect(1, new)
    clients.model = new
    await release
    await clients.served(20)


async def test_a_replaced_model_loses_no_request_in_flight(service: Service) -> None:
    await service.expect(1)
    await service.expect(1, "bystander")
    async with (
        load(service.gateway, clients=2, model="bystander", tokens=100) as bystanders,
        load(service.gateway, clients=6, tokens=100) as clients,
    ):
        await clients.served(10)
        before = set(service.children("engine"))
        for old, new in (("tiny-chat", "twin"), ("twin", "tiny-chat")):
            await replace(service, clients, old, new)
            await service.expect(0, old)
        await bystanders.served(5)
    report("replace and back", [clients, bystanders])
    assert missed(clients) == []
    assert bystanders.bad() == []
    kept = before & set(service.children("engine"))
    assert [process.argv[-2] for process in kept] == ["bystander"]


async def test_a_stopped_model_finishes_and_can_be_started_again(service: Service) -> None:
    await service.expect(1)
    async with (
        load(service.gateway, clients=2, model="bystander", tokens=100) as bystanders,
        load(service.gateway, clients=6, tokens=100) as clients,
    ):
        await clients.served(10)
        await service.release("tiny-chat")
        await service.expect(0)
        await service.release("bystander", "tiny-chat", keep=True)
        await service.expect(1)
        await clients.served(20)
    report("stop and start", [clients, bystanders])
    assert missed(clients) == []
    assert bystanders.bad() == []
