"""``opsgpt load`` against a controller whose launcher is played: whatever becomes of the load, the
command ends, and says so."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from dev_opsgpt.cli import loads
from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.cli.http import Api
from dev_opsgpt.routing.cards import Part
from tests.controller.test_loads import call, ordered, standing, until
from tests.support.played_launcher import PlayedLauncher, card, played
from tests.support.stack import SECRET, Stack, running


@pytest.fixture
async def launcher(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PlayedLauncher]:
    monkeypatch.setattr(loads, "LOOK", 0.02)
    monkeypatch.setattr(loads, "AWAY", 1.0)
    async with running({}) as stack, played(stack, card("a")) as found:
        yield found


def load(stack: Stack, model: str = "a") -> "asyncio.Task[str]":
    """The command, in a thread."""
    api = Api(stack.controller_url, SECRET, "")
    return asyncio.create_task(asyncio.to_thread(loads.load, api, model))


async def reason(loading: "asyncio.Task[str]") -> str:
    """Why it has failed."""
    with pytest.raises(CliError) as caught:
        async with asyncio.timeout(15):
            await loading
    return str(caught.value)


async def test_it_serves(launcher: PlayedLauncher) -> None:
    assert await load(launcher.stack) == "a serves"


async def test_it_fails(launcher: PlayedLauncher) -> None:
    launcher.broken.add("a")
    assert "a could not be loaded: the file is damaged" in await reason(load(launcher.stack))


async def test_its_process_keeps_dying(launcher: PlayedLauncher) -> None:
    part = Part(model="a", address="http://x", state="restarting", died="ended with code 3")
    launcher.coming.append(structs.replace(part, deaths=2))
    await launcher.reports.send()
    loading = load(launcher.stack)
    await asyncio.sleep(0.2)
    assert not loading.done(), "it may be well the next time"
    launcher.coming[0] = structs.replace(part, deaths=3)
    await launcher.reports.send()
    told = await reason(loading)
    assert told == (
        "a does not serve: its process ended with code 3, and is started again; "
        "it has died 3 times now"
    )


@pytest.mark.parametrize("path", ["/unload_model", "/release_worker"])
async def test_somebody_takes_it_away(launcher: PlayedLauncher, path: str) -> None:
    stack = launcher.stack
    launcher.coming.append(Part(model="a", address="http://x", state="starting"))
    await launcher.reports.send()
    loading = load(stack)

    async def loads_() -> bool:
        return (await standing(stack, "a"))["phase"] == "loading"

    await until(loads_, "it loads")
    await asyncio.sleep(0.1)
    assert (await call(stack, path, model_name="a"))["code"] == 200
    told = await reason(loading)
    assert told.startswith("a is not loaded, and nobody loads it any more")
    assert told.endswith("out of service") is (path == "/release_worker")


async def test_the_controller_goes_away(launcher: PlayedLauncher) -> None:
    launcher.go.clear()
    loading = load(launcher.stack)
    await until(lambda: ordered(launcher, "a"), "the load")
    await launcher.stack.controller.stop()
    assert "Nobody answers at http://127.0.0.1:" in await reason(loading)


async def test_the_model_is_known_no_more(launcher: PlayedLauncher) -> None:
    launcher.coming.append(Part(model="a", address="http://x", state="starting"))
    await launcher.reports.send()
    loading = load(launcher.stack)
    await asyncio.sleep(0.2)
    launcher.cards.clear()
    launcher.coming.clear()
    await launcher.reports.announce()
    assert await reason(loading) == ("a is not loaded: the controller does not know it any more.")
