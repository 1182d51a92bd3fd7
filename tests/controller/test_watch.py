"""The pushed table: what is told, when, and what a slow watcher costs."""

import asyncio
import json
import socket
from typing import Any

import msgspec
import pytest

from dev_opsgpt.controller.registry import Registry
from dev_opsgpt.controller.watch import GATHER, GATHER_LOAD, PING_AFTER, Pending, Watcher
from dev_opsgpt.routing.table import Table, Worker
from dev_opsgpt.routing.updates import Change, Snapshot

from .conftest import AUTH, Api, eventually

A, B = "http://10.9.9.1:1", "http://10.9.9.2:1"


def table(*addresses: str) -> Table:
    found = Table()
    for address in addresses:
        found.register(Worker(address=address, models=("m",), kind="opsgpt"), now=0, lifetime=None)
    return found


def told(message: Change | Snapshot) -> tuple[list[str], list[tuple[str, str]]]:
    assert isinstance(message, Change)
    return (
        [row.address for row in message.upsert],
        [(gone.address, gone.reason) for gone in message.remove],
    )


class TestPending:
    def fresh(self, limit: int = 100) -> Pending:
        pending = Pending(limit)
        assert isinstance(pending.take(table()), Snapshot)
        assert pending.due is None
        return pending

    def test_a_new_watcher_is_owed_everything(self) -> None:
        pending = Pending()
        assert pending.due < 0
        message = pending.take(table(A))
        assert isinstance(message, Snapshot)
        assert [row.address for row in message.workers] == [A]

    def test_changes_of_one_worker_become_one(self) -> None:
        pending = self.fresh()
        for _ in range(1000):
            pending.changed(A, 5.0)
            pending.changed(B, 5.0, load_only=True)
        assert len(pending) == 2
        assert told(pending.take(table(A, B))) == ([A, B], [])
        assert pending.due is None
        assert len(pending) == 0

    def test_load_waits_longer_and_never_delays_the_rest(self) -> None:
        pending = self.fresh()
        pending.changed(A, 5.0, load_only=True)
        assert pending.due == 5.0 + GATHER_LOAD
        pending.changed(B, 5.1)
        assert pending.due == 5.1 + GATHER
        pending.changed(A, 5.15)
        pending.changed(A, 5.19, load_only=True)
        assert pending.due == 5.1 + GATHER

    def test_an_address_is_told_once(self) -> None:
        pending = self.fresh()
        pending.changed(A, 0)
        pending.removed(A, "left", 0)
        pending.removed(B, "expired", 0)
        pending.changed(B, 0)
        assert told(pending.take(table(B))) == ([B], [(A, "left")])

    def test_too_much_becomes_a_snapshot(self) -> None:
        pending = self.fresh(limit=10)
        for number in range(1000):
            pending.removed(f"http://10.9.9.1:{number + 1}", "expired", 0)
            assert len(pending) <= 10
        assert isinstance(pending.take(table(A)), Snapshot)
        pending.changed(A, 0)
        assert told(pending.take(table(A))) == ([A], [])


async def test_watcher_lines_by_a_clock_of_its_own() -> None:
    now = 100.0
    rows = table(A)
    watcher = Watcher(rows, lambda: now, Pending())
    assert json.loads(await watcher.next())["type"] == "snapshot"
    waiting = asyncio.create_task(watcher.next())
    await asyncio.sleep(0.01)
    now += PING_AFTER
    watcher.changed(A, load_only=True)  # wakes it; the load is not due yet, the ping is
    assert json.loads(await waiting) == {"type": "ping"}
    now += GATHER_LOAD
    assert json.loads(await watcher.next())["upsert"][0]["address"] == A
    waiting = asyncio.create_task(watcher.next())
    await asyncio.sleep(0.01)
    watcher.close()
    assert await waiting is None
    assert await watcher.next() is None


async def test_over_http(controller: Any) -> None:
    api: Api = await controller()
    await api.register(A, "m")
    async with api.lines("GET", "/watch") as lines:
        first = await lines.next()
        assert first["type"] == "snapshot"
        assert [row["address"] for row in first["workers"]] == [A]
        assert msgspec.convert(first["workers"][0], Worker).models == ("m",)

        await api.register(B, "n")
        change = await lines.told()
        assert change["type"] == "change"
        assert [row["address"] for row in change["upsert"]] == [B]
        assert change["remove"] == []

        await api.call("/drain_worker", {"worker_name": A})
        [row] = (await lines.told())["upsert"]
        assert (row["address"], row["draining"]) == (A, True)

        load = {"running": 3, "waiting": 1, "limit": 4}
        beat = {"worker_name": B, "queue_length": 4, "load": load}
        await api.call("/receive_heart_beat", beat)
        [row] = (await lines.told())["upsert"]
        assert (row["running"], row["waiting"], row["limit"]) == (3, 1, 4)

        await api.call("/deregister_worker", {"worker_name": A})
        change = await lines.told()
        assert (change["upsert"], change["remove"]) == ([], [{"address": A, "reason": "left"}])

        await api.call("/deregister_worker", {"worker_name": B, "returns": True})
        change = await lines.told()
        assert change["remove"] == [{"address": B, "reason": "unhealthy"}], "it comes back"


async def test_many_changes_come_as_few_lines(controller: Any) -> None:
    api: Api = await controller()
    async with api.lines("GET", "/watch") as lines:
        await lines.next()
        addresses = {f"http://10.9.9.9:{port}" for port in range(1, 201)}
        registry = api.app.state.controller.registry
        for address in addresses:
            registry.register(Worker(address=address, models=("m",), kind="opsgpt"), lifetime=None)
        [*rows] = (await lines.told())["upsert"]
        assert {row["address"] for row in rows} == addresses


async def test_pings_and_expiry(controller: Any) -> None:
    api: Api = await controller(sweep_interval=0.05)
    await api.register(A, "m", beat_interval=0.5)
    async with api.lines("GET", "/watch") as lines:
        assert (await lines.next())["workers"]
        assert (await lines.told())["remove"] == [{"address": A, "reason": "expired"}]
        assert await lines.next() == {"type": "ping"}


async def test_a_watch_that_ends_leaves_nothing_behind(controller: Any) -> None:
    api: Api = await controller()
    registry = api.app.state.controller.registry
    for _ in range(3):
        async with api.lines("GET", "/watch") as lines:
            await lines.next()
            assert len(registry._watchers) == 1
        await eventually(lambda: not registry._watchers)


async def test_reconnecting_gives_a_new_snapshot(controller: Any) -> None:
    api: Api = await controller()
    async with api.lines("GET", "/watch") as lines:
        assert (await lines.next())["workers"] == []
    await api.register(A, "m")
    async with api.lines("GET", "/watch") as lines:
        assert len((await lines.next())["workers"]) == 1


async def stuck_watch(api: Api) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A watch whose client reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    port = int(api.url.rsplit(":", 1)[1])
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    head = f"GET /watch HTTP/1.1\r\nhost: x\r\nauthorization: {AUTH['authorization']}\r\n\r\n"
    writer.write(head.encode())
    await eventually(lambda: api.app.state.controller.registry._watchers)
    return reader, writer


async def test_a_slow_watcher_costs_no_memory_and_catches_up(controller: Any) -> None:
    api: Api = await controller()
    registry: Registry = api.app.state.controller.registry
    reader, writer = await stuck_watch(api)
    [watcher] = registry._watchers
    models = tuple(f"{number}-{'x' * 200}" for number in range(10_000))  # 2 MB a line

    def overdue() -> bool:
        registry.register(Worker(address=A, models=models, kind="opsgpt"), lifetime=None)
        return watcher._pending.due < watcher._clock() - 1

    await eventually(overdue)
    for port in range(1, 25_001):
        address = f"http://10.9.9.1:{port}"
        registry.register(Worker(address=address, models=("m",), kind="opsgpt"), lifetime=None)
        registry.remove(address, "left")
        assert len(watcher._pending) <= 10_000
    registry.register(Worker(address=B, models=("m",), kind="opsgpt"), lifetime=None)

    tail = b""
    async with asyncio.timeout(30):
        while not (tail.count(b'{"type":"snapshot"') == 1 and b'"address":"' + B.encode() in tail):
            tail = tail[-5_000_000:] + await reader.read(1_000_000)
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: not registry._watchers)


async def test_a_stopping_server_is_not_held_up(controller: Any) -> None:
    api: Api = await controller()
    async with api.lines("GET", "/watch") as lines:
        await lines.next()
        api.app.state.controller.close()
        with pytest.raises(StopAsyncIteration):
            await lines.next()
    async with api.lines("GET", "/watch") as lines:
        with pytest.raises(StopAsyncIteration):
            await lines.next()
