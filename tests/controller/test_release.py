"""Stop, start and replace at run time, with a launcher on the real channel."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dev_opsgpt.controller.options import AttachedServer

from .conftest import Api, Serve, StandIn, eventually

UNREACHABLE = "http://127.0.0.1:9"


class TestLauncher:
    """A launcher that runs stand-ins for workers; faults on request."""

    __test__ = False

    def __init__(self, api: Api, serve: Serve, name: str = "here", *models: str) -> None:
        self.api, self.serve, self.name, self.models = api, serve, name, models
        self.workers: dict[str, StandIn] = {}
        self.log: list[tuple[str, str]] = []
        self.queue_at_stop: list[int] = []
        self.fails = False
        self.silent = False
        self.registers = True

    async def start(self, model: str) -> str:
        worker = StandIn(model)
        address = await self.serve(worker.app)
        self.workers[address] = worker
        if self.registers:
            await self.api.register(address, model, launcher=self.name)
        return address

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["TestLauncher"]:
        body = {"name": self.name, "models": list(self.models)}
        async with self.api.lines("POST", "/launchers/connect", body) as lines:
            assert await lines.next() == {"type": "ping"}
            job = asyncio.create_task(self._obey(lines))
            yield self
            job.cancel()
            await asyncio.wait([job])

    async def _obey(self, lines: Any) -> None:
        while True:
            command = await lines.told(60)
            self.log.append((command["type"], command["model"]))
            if self.silent:
                continue
            if not self.fails:
                await self._do(command)
            reply = {"id": command["id"], "ok": not self.fails, "msg": "as told by the test"}
            assert await self.api.call("/launchers/reply", reply) == {"exist": True}

    async def _do(self, command: dict[str, Any]) -> None:
        if command["type"] == "start":
            assert command["address"] is None
            await self.start(command["model"])
        else:
            self.queue_at_stop.append(self.workers[command["address"]].queue)
            await self.api.call("/deregister_worker", {"worker_name": command["address"]})


async def release(
    api: Api, model: str, new: str | None = None, keep: bool = False
) -> tuple[int, str]:
    body = {"model_name": model, "new_model_name": new, "keep_origin": keep}
    reply = await api.call("/release_worker", body)
    assert set(reply) == {"code", "msg"}
    return reply["code"], reply["msg"]


async def models(api: Api) -> list[str]:
    return sorted(model for row in (await api.workers()).values() for model in row["models"])


@pytest.fixture
def launch(controller: Any, serve: Serve) -> Callable[..., Any]:
    """A controller and a launcher for models m, n and o, on which "m" and "other" run."""

    async def start(**options: Any) -> TestLauncher:
        api = await controller(
            **{"drain_timeout": 30, "start_timeout": 30, "settle": 0.05, **options}
        )
        launcher = TestLauncher(api, serve, "here", "m", "n", "o")
        for model in ("m", "other"):
            await launcher.start(model)
        return launcher

    return start


async def test_stop(launch: Any) -> None:
    launcher = await launch()
    async with launcher.connected():
        assert await release(launcher.api, "m") == (200, "'m' stopped")
        assert await models(launcher.api) == ["other"]
        assert launcher.log == [("stop", "m")]
        code, msg = await release(launcher.api, "m")
        assert (code, msg) == (500, "no worker serves the model 'm'")


async def test_stop_waits_for_requests_in_flight(launch: Any) -> None:
    launcher = await launch()
    async with launcher.connected():
        [address] = [a for a, worker in launcher.workers.items() if worker.models == ["m"]]
        launcher.workers[address].queue = 2
        stopping = asyncio.create_task(release(launcher.api, "m"))

        async def draining() -> bool:
            return bool((await launcher.api.workers())[address]["draining"])

        await eventually(draining)
        assert (await launcher.api.call("/get_worker_address", {"model": "m"}))["address"] == ""
        await asyncio.sleep(0.6)
        assert launcher.log == []
        launcher.workers[address].queue = 0
        assert (await stopping)[0] == 200
        assert launcher.queue_at_stop == [0]


async def test_a_drain_that_takes_too_long_stops_nothing(launch: Any) -> None:
    launcher = await launch(drain_timeout=0.8)
    async with launcher.connected():
        [address] = [a for a, worker in launcher.workers.items() if worker.models == ["m"]]
        launcher.workers[address].queue = 3
        code, msg = await release(launcher.api, "m")
        assert code == 500
        assert "3 requests in work after 0.8 s" in msg
        assert launcher.log == []
        assert (await launcher.api.workers())[address]["draining"] is False
        assert (await launcher.api.call("/get_worker_address", {"model": "m"}))["address"]


async def test_stop_takes_all_replicas(launch: Any) -> None:
    launcher = await launch()
    async with launcher.connected():
        await launcher.start("m")
        assert (await release(launcher.api, "m"))[0] == 200
        assert await models(launcher.api) == ["other"]
        assert launcher.log == [("stop", "m")] * 2


async def test_start(launch: Any) -> None:
    launcher = await launch()
    async with launcher.connected():
        assert await release(launcher.api, "m", "n", keep=True) == (200, "'n' started")
        assert await models(launcher.api) == ["m", "n", "other"]
        assert await release(launcher.api, "", "o", keep=True) == (200, "'o' started")
        code, msg = await release(launcher.api, "m", "o", keep=True)
        assert (code, "running already" in msg) == (500, True)
        code, msg = await release(launcher.api, "nobody", "n", keep=True)
        assert (code, msg) == (500, "no worker serves the model 'nobody'")
        code, _ = await release(launcher.api, "m", None, keep=True)
        assert code == 500


async def test_replace_starts_before_it_stops(launch: Any) -> None:
    launcher = await launch()
    async with launcher.connected():
        assert await release(launcher.api, "m", "n") == (200, "'n' started; 'm' stopped")
        assert launcher.log == [("start", "n"), ("stop", "m")]
        assert await models(launcher.api) == ["n", "other"]


async def test_a_replaced_model_finishes_its_streams(launch: Any) -> None:
    launcher = await launch()
    api = launcher.api
    [old] = [worker for worker in launcher.workers.values() if worker.models == ["m"]]
    old.pieces = [b'{"text":"%d"}\0' % number for number in range(100)]  # 1 s or more
    async with launcher.connected():
        body = {"model": "m", "prompt": "p"}
        streaming = asyncio.create_task(api.post("/worker_generate_stream", body))
        await eventually(lambda: old.queue)
        assert (await release(api, "m", "n"))[0] == 200
        assert streaming.done(), "the old model was stopped before its stream was at its end"
        assert (await streaming).content == b"".join(old.pieces)
        assert launcher.queue_at_stop == [0]


async def test_replace_by_itself_is_a_restart(launch: Any) -> None:
    launcher = await launch()
    async with launcher.connected():
        [before] = [a for a, row in (await launcher.api.workers()).items() if "m" in row["models"]]
        assert (await release(launcher.api, "m", "m"))[0] == 200
        [after] = [a for a, row in (await launcher.api.workers()).items() if "m" in row["models"]]
        assert before != after


@pytest.mark.parametrize("fault", ["fails", "silent", "registers"])
async def test_a_replacement_that_does_not_come_leaves_the_old_one(launch: Any, fault: str) -> None:
    launcher = await launch(start_timeout=0.5)
    async with launcher.connected():
        setattr(launcher, fault, fault != "registers")
        async with launcher.api.lines("GET", "/watch") as lines:
            await lines.next()
            code, msg = await release(launcher.api, "m", "n")
            assert code == 500, msg
            assert await models(launcher.api) == ["m", "other"]
            assert launcher.log == [("start", "n")]
            with pytest.raises(TimeoutError):
                await lines.told(0.3)  # it was never even drained
    if fault == "fails":
        assert msg == "as told by the test"


async def test_a_stop_that_fails_puts_the_worker_back(launch: Any) -> None:
    launcher = await launch()
    launcher.fails = True
    async with launcher.connected():
        code, msg = await release(launcher.api, "m")
        assert (code, "as told by the test" in msg) == (500, True)
        assert (await launcher.api.call("/get_worker_address", {"model": "m"}))["address"]


async def test_no_launcher_can_start_it(launch: Any) -> None:
    launcher = await launch()
    code, msg = await release(launcher.api, "m", "n")
    assert (code, "no launcher can start the model 'n'" in msg) == (500, True)
    async with launcher.connected():
        code, msg = await release(launcher.api, "m", "unheard of")
        assert (code, "no launcher can start" in msg) == (500, True)
    assert await models(launcher.api) == ["m", "other"]


async def test_a_launcher_that_leaves_fails_its_command(launch: Any) -> None:
    launcher = await launch()
    launcher.silent = True
    async with launcher.connected():
        starting = asyncio.create_task(release(launcher.api, "m", "n"))
        await eventually(lambda: launcher.log)
    assert await starting == (500, "the launcher 'here' has left")
    assert await models(launcher.api) == ["m", "other"]


async def test_a_launcher_that_connects_anew_takes_over(launch: Any) -> None:
    launcher = await launch()
    async with launcher.connected(), launcher.connected():
        assert (await release(launcher.api, "", "n", keep=True))[0] == 200
        assert launcher.log == [("start", "n")], "only one of the two was asked"


async def test_a_reply_nobody_waits_for(controller: Any) -> None:
    api = await controller()
    assert await api.call("/launchers/reply", {"id": "x", "ok": True}) == {"exist": False}


async def test_releases_of_one_model_take_turns(launch: Any) -> None:
    launcher = await launch()
    async with launcher.connected():
        replies = await asyncio.gather(*(release(launcher.api, "m") for _ in range(4)))
        assert sorted(code for code, _ in replies) == [200, 500, 500, 500]
        assert launcher.log == [("stop", "m")]


async def test_a_worker_started_by_hand_is_asked_itself(controller: Any, serve: Serve) -> None:
    api, worker = await controller(), StandIn("m")
    address = await serve(worker.app)
    await api.register(address, "m")
    leave = asyncio.create_task(
        eventually(
            lambda: worker.released and api.call("/deregister_worker", {"worker_name": address})
        )
    )
    assert (await release(api, "m"))[0] == 200
    await leave
    assert worker.released == [0]
    assert await models(api) == []


async def test_a_worker_that_cannot_be_released_stays(controller: Any, serve: Serve) -> None:
    api, worker = await controller(), StandIn("m")
    worker.release_code = 500
    await api.register(await serve(worker.app), "m")
    code, msg = await release(api, "m")
    assert (code, "was not stopped" in msg) == (500, True)
    assert (await api.call("/get_worker_address", {"model": "m"}))["address"]


async def test_a_worker_with_a_second_model_is_left_alone(launch: Any, serve: Serve) -> None:
    launcher = await launch()
    api, both = launcher.api, StandIn("p", "q")
    address = await serve(both.app)
    launcher.workers[address] = both
    await api.register(address, "p", "q", launcher="here")
    async with launcher.connected():
        code, msg = await release(api, "p")
        assert (code, "also serves 'q'" in msg) == (500, True)
        assert await models(api) == ["m", "other", "p", "q"]
        await launcher.start("q")
        assert (await release(api, "p"))[0] == 200, "another worker serves q now"
        assert await models(api) == ["m", "other", "q"]


async def test_a_dead_worker_is_not_waited_for(launch: Any) -> None:
    launcher = await launch()
    await launcher.api.register(UNREACHABLE, "dead", launcher="here")
    launcher.workers[UNREACHABLE] = StandIn("dead")
    async with launcher.connected():
        assert (await release(launcher.api, "dead"))[0] == 200
        assert await models(launcher.api) == ["m", "other"]


async def test_attached_servers_are_not_ours_to_stop(controller: Any, serve: Serve) -> None:
    from .test_probe import OpenAIServer

    url = await serve(OpenAIServer("m").app) + "/v1"
    api = await controller(attached=(AttachedServer("m", url),), probe_interval=0.05)
    await eventually(api.workers)
    code, msg = await release(api, "m")
    assert (code, "attached by URL" in msg) == (500, True)


@pytest.mark.parametrize("body", [{}, {"model_name": 1}, {"model_name": "m", "keep_origin": "no"}])
async def test_bad_bodies(controller: Any, body: dict[str, Any]) -> None:
    api = await controller()
    answer = await api.post("/release_worker", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in ("model_name", "keep_origin")
