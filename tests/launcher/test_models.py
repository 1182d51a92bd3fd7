"""Models among units whose lives the test plays."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from dev_opsgpt.config import Settings
from dev_opsgpt.config.changes import changes
from dev_opsgpt.launcher.catalogue import parts
from dev_opsgpt.launcher.channel import CommandFailed
from dev_opsgpt.launcher.client import CallFailed, Calls
from dev_opsgpt.launcher.link import Exit, Failed, News, Progress, Ready, Stopped
from dev_opsgpt.launcher.logs import LogFile
from dev_opsgpt.launcher.models import Models
from dev_opsgpt.launcher.plan import ProcessSpec
from dev_opsgpt.launcher.replacing import Replacing
from dev_opsgpt.launcher.unit import State, Unit
from dev_opsgpt.launcher.units import Units
from tests.support.ports import free_ports


class Life:
    """A process that is ready at once, unless its settings are to the test's dislike."""

    pid = 1

    def __init__(self, cast: "Cast", spec: ProcessSpec, heard: Callable[[News], None]) -> None:
        self.spec = spec
        self.heard = heard
        self.cast = cast
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        for worker in spec.workers:
            port = worker.listen.port
            if worker.model in cast.outrun:
                cast.outrun.remove(worker.model)
                heard(Failed("cannot listen", Exit.PORT_IN_USE, port))
                self.end(Exit.PORT_IN_USE)
            elif worker.model in cast.broken:
                heard(Failed("no such file", Exit.ENGINE, port))
                if len(spec.workers) == 1:
                    self.end(Exit.ENGINE)
            else:
                heard(Ready(port, worker.address))

    async def wait(self) -> int:
        return await self.code

    def end(self, code: int) -> None:
        if not self.code.done():
            self.code.set_result(code)

    def send(self, data: bytes) -> None:
        raise AssertionError("nothing is sent to a worker")

    def terminate(self) -> None:
        self.cast.ended.append([worker.model for worker in self.spec.workers])
        if self.cast.drains:
            self.end(0)

    def kill(self) -> None:
        self.end(-signal.SIGKILL)


class Cast:
    """Settings, units and models, and what has happened to them."""

    def __init__(self, folder: Path) -> None:
        # The others are for the models that count on from it.
        self.port, *_ = free_ports(10)
        self.lives: list[Life] = []
        self.ended: list[list[str]] = []
        self.released: list[str] = []
        self.broken: set[str] = set()
        self.outrun: list[str] = []
        self.drains = True
        self.told_released: list[list[str]] = []
        self.values: dict[str, Any] = {
            "LLM_MODELs": ["a"],
            "llm_model_dict": {name: {"local_model_path": f"{name}.gguf"} for name in "ab"},
            "ONLINE_LLM_MODEL": {name: {"provider": "P"} for name in ("x", "y")},
            "FSCHAT_MODEL_WORKERS": {"default": {"port": self.port}},
            "DRAIN_TIMEOUT": 0.2,
        }
        self.read = self.settings()
        log = LogFile(folder / "a.log")
        self.units = Units(lambda spec: Unit(spec, self.spawn, log, self.changed))
        self.models = Models(self.read, self.units, cast(Calls, self), "me")
        self.controller = "http://127.0.0.1:1"

    def changed(self, unit: Unit) -> None:
        """Some process has."""
        self.told_released.append(self.models.all_released())

    async def spawn(self, spec: ProcessSpec, log: LogFile, heard: Callable[[News], None]) -> Life:
        self.lives.append(Life(self, spec, heard))
        return self.lives[-1]

    async def release(self, address: str) -> None:
        """Stands in for the call to a worker."""
        self.released.append(address)
        for life in self.lives:
            for worker in life.spec.workers:
                if worker.address == address and not life.code.done():
                    life.heard(Stopped(worker.listen.port))
                    return
        raise CallFailed("nobody there")

    def settings(self) -> Settings:
        return Settings.model_validate(self.values)

    async def reload(self, room: bool = True) -> list[str]:
        """Carries out what has changed in ``values``; the lines, failures marked."""
        read = self.settings()
        found = changes(self.read, read)
        self.read = self.models.settings = read
        mine = [plan.name for plan in read.models_to_start()]
        replacing = Replacing(self.models, self.units, read, mine, lambda _: room)
        lines = await replacing.carry_out(found)
        return [line.text if line.ok else f"! {line.text}" for line in lines]

    def serving(self, model: str) -> list[int]:
        return [part.port for _, part in self.units.serving(model, None)]


@pytest.fixture
async def stage(tmp_path: Path) -> Any:
    found = Cast(tmp_path)
    assert await found.models.start(["a", "x", "y"]) == {}
    yield found
    found.drains = True
    await found.units.stop(list(found.units), 0.1)


async def gone(stage: Cast, *models: str) -> None:
    async with asyncio.timeout(30):
        while list(models) not in stage.ended:
            await asyncio.sleep(0.01)


async def test_changed_model_is_replaced_by_one_on_another_port(stage: Cast) -> None:
    (before,) = stage.serving("a")
    stage.drains = False
    stage.values["FSCHAT_MODEL_WORKERS"]["a"] = {"n_ctx": 9}
    assert await stage.reload() == ["a: replaced"]
    (after,) = stage.serving("a")
    assert after != before
    await gone(stage, "a")
    assert before in stage.units.ports(), "it drains"


async def test_model_that_does_not_start_leaves_the_old_one(stage: Cast) -> None:
    before = stage.serving("a")
    stage.broken.add("a")
    stage.values["FSCHAT_MODEL_WORKERS"]["a"] = {"n_ctx": 9}
    assert await stage.reload() == [
        "! a: not replaced, the old one serves on: no such file",
    ]
    assert stage.serving("a") == before


async def test_model_that_failed_is_started_when_it_was_mended(stage: Cast) -> None:
    stage.broken.add("b")
    stage.values["LLM_MODELs"] = ["a", "b"]
    assert await stage.reload() == ["! b: not started: no such file"]
    stage.broken.clear()
    stage.values["llm_model_dict"]["b"] = {"local_model_path": "c.gguf"}
    assert await stage.reload() == ["b: started"]


async def test_model_that_was_stopped_stays_stopped(stage: Cast) -> None:
    await stage.models.stop_model("a", None)
    stage.values["FSCHAT_MODEL_WORKERS"]["a"] = {"n_ctx": 9}
    assert await stage.reload() == ["a: changed, and stays stopped"]
    await stage.models.start_model("a")
    stage.values["FSCHAT_MODEL_WORKERS"]["a"] = {"n_ctx": 10}
    assert await stage.reload() == ["a: replaced"]


async def test_model_without_room_for_two_leaves_first(stage: Cast, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"x")
    stage.values["llm_model_dict"]["a"] = {"local_model_path": str(path)}
    text = "a: replaced, the old one first: there is no room in memory for both"
    assert await stage.reload(room=False) == [text]
    assert stage.ended == [["a"]]
    assert len(stage.serving("a")) == 1


async def test_own_port_is_waited_for(stage: Cast) -> None:
    (port,) = free_ports(1)
    stage.values["ONLINE_LLM_MODEL"]["z"] = {"provider": "P", "port": port}
    assert await stage.reload() == ["z: started"]
    stage.values["ONLINE_LLM_MODEL"]["z"]["version"] = "2"
    assert await stage.reload() == [f"z: replaced, the old one first: the port {port} is its own"]
    assert stage.serving("z") == [port]
    # The port goes from one model to another.
    del stage.values["ONLINE_LLM_MODEL"]["z"]
    stage.values["ONLINE_LLM_MODEL"]["w"] = {"provider": "P", "port": port}
    assert await stage.reload() == ["z: removed", "w: started"]
    assert stage.serving("w") == [port]
    assert stage.serving("z") == []


async def test_model_that_is_removed_while_it_waits_is_not_started(stage: Cast) -> None:
    (port,) = free_ports(1)
    stage.values["ONLINE_LLM_MODEL"]["z"] = {"provider": "P", "port": port}
    await stage.reload()
    stage.drains = False
    stage.values["ONLINE_LLM_MODEL"]["z"]["version"] = "2"
    first = asyncio.create_task(stage.reload())
    await gone(stage, "z")
    del stage.values["ONLINE_LLM_MODEL"]["z"]
    assert await stage.reload() == ["z: removed; it was not running"]
    stage.lives[-1].end(0)
    assert await first == ["z: another order came in between"]
    assert stage.serving("z") == []


async def test_online_model_leaves_its_process_to_the_others(stage: Cast) -> None:
    (x,), (y,) = stage.serving("x"), stage.serving("y")
    stage.values["ONLINE_LLM_MODEL"]["x"] = {"provider": "Q"}
    assert await stage.reload() == ["x: replaced"]
    async with asyncio.timeout(30):
        while not stage.released:
            await asyncio.sleep(0.01)
    assert stage.released == [f"http://127.0.0.1:{x}"]
    assert stage.serving("y") == [y]
    assert stage.ended == []
    del stage.values["ONLINE_LLM_MODEL"]["y"]
    assert await stage.reload() == ["y: removed"]
    await gone(stage, "x", "y")


async def test_worker_that_does_not_leave_serves_on(stage: Cast) -> None:
    (unit, part), *_ = stage.units.serving("x", None)
    part.address = "http://127.0.0.1:2"
    with pytest.raises(CommandFailed, match="did not stop"):
        await stage.models.stop([(unit, part)])
    assert len(stage.serving("x")) == 1


async def test_more_and_fewer_replicas(stage: Cast) -> None:
    before = stage.serving("a")
    stage.values["FSCHAT_MODEL_WORKERS"]["a"] = {"replicas": 3}
    assert await stage.reload() == ["a: 3 replicas"]
    assert stage.serving("a")[:1] == before
    assert len(set(stage.serving("a"))) == 3
    stage.values["FSCHAT_MODEL_WORKERS"]["a"] = {"replicas": 1}
    assert await stage.reload() == ["a: 1 replica"]
    assert stage.serving("a") == before


async def test_port_that_somebody_was_quicker_to_take_is_left_to_him(stage: Cast) -> None:
    stage.outrun = ["b", "b"]
    assert await stage.models.start(["b"]) == {}
    assert len(stage.serving("b")) == 1
    stage.outrun = ["b"] * 5
    assert await stage.models.start(["b"]) == {"b": "cannot listen"}


async def test_removed_model_that_did_not_run(stage: Cast) -> None:
    del stage.values["llm_model_dict"]["b"]
    assert await stage.reload() == ["b: removed; it was not running"]


async def test_a_load_finds_what_is_there(stage: Cast) -> None:
    await stage.models.load_model("a", True)
    assert len(stage.lives) == 2, "it runs already, and stays"
    assert not stage.models.demanded
    loads = [stage.models.load_model("b", True) for _ in range(3)]
    assert await asyncio.gather(*loads) == ["'b' serves"] * 3
    assert len(stage.serving("b")) == 1
    assert set(stage.models.demanded) == {"b"}
    assert stage.models.working == []
    await stage.models.load_model("b", False)
    assert not stage.models.demanded, "somebody wants it to stay"


async def test_a_load_that_fails_leaves_nothing(stage: Cast) -> None:
    stage.broken.add("b")
    with pytest.raises(CommandFailed, match="no such file"):
        await stage.models.load_model("b", True)
    assert not stage.models.demanded
    assert stage.serving("b") == stage.models.working == []
    with pytest.raises(CommandFailed, match="cannot start"):
        await stage.models.load_model("nobody", True)


async def test_an_unloaded_model_is_no_released_one(stage: Cast) -> None:
    await stage.models.load_model("b", True)
    await stage.models.unload_model("b", None)
    assert stage.models.all_released() == []
    assert not any(stage.told_released), "not for a moment"
    assert not stage.models.demanded
    await stage.models.stop_model("a", None)
    assert stage.models.all_released() == ["a"]
    await stage.models.load_model("a", False)
    assert stage.models.all_released() == []


async def test_what_does_not_run_is_taken_out_of_service(stage: Cast) -> None:
    await stage.models.stop_model("b", None)
    assert stage.models.all_released() == ["b"]
    for name, address in (("b", "http://127.0.0.1:1"), ("c", None)):
        with pytest.raises(CommandFailed, match=f"runs no '{name}'"):
            await stage.models.stop_model(name, address)
    await stage.models.load_model("b", False)
    assert stage.models.all_released() == []
    stage.broken.add("b")
    await stage.models.stop_model("b", None)
    with pytest.raises(CommandFailed):
        await stage.models.load_model("b", False)
    assert stage.models.failures()
    await stage.models.stop_model("b", None)
    assert not stage.models.failures(), "it is not to run any more"
    # Declared anew it is another one.
    entry = stage.values["llm_model_dict"].pop("b")
    await stage.reload()
    stage.values["llm_model_dict"]["b"] = entry
    await stage.reload()
    assert stage.models.all_released() == []


async def test_what_a_request_has_loaded_stays_once_it_is_to_start(stage: Cast) -> None:
    await stage.models.load_model("b", True)
    stage.values["LLM_MODELs"] = ["a", "b"]
    assert await stage.reload() == ["b: it is loaded already, and stays"]
    assert not stage.models.demanded
    stage.values["LLM_MODELs"] = ["a"]
    assert await stage.reload() == ["b: removed"]


async def test_parts_tell_what_is_loaded_and_how_far_that_is(stage: Cast) -> None:
    await stage.models.load_model("b", True)
    found = {part.model: part for part in parts(stage.units, stage.models.demanded, ["c"])}
    assert set(found) == {"a", "b", "c"}, "online models are none of these"
    assert [found[name].demanded for name in "abc"] == [False, True, False]
    assert (found["b"].state, found["c"].state) == ("ready", "starting")
    (unit, part) = stage.units.serving("b", None)[0]
    part.state, part.leaving = State.STARTING, False
    stage.lives[-1].heard(Progress(part.port, "loading the weights", 0.5))
    (shown,) = [p for p in parts(stage.units, (), ()) if p.model == "b"]
    assert (shown.state, shown.doing, shown.fraction) == ("starting", "loading the weights", 0.5)
    stage.lives[-1].heard(Ready(part.port, part.address))
    part.leaving = True
    (shown,) = [p for p in parts(stage.units, (), ()) if p.model == "b"]
    assert (shown.state, shown.doing, shown.fraction) == ("leaving", "", None)
    part.leaving = False
    assert unit.parts
