"""The keys in a gateway's memory: what changes anywhere is known soon, and a database that is away
changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert

from dev_opsgpt.gateway import key_ring as module
from dev_opsgpt.gateway.key_ring import KeyRing
from dev_opsgpt.gateway.limits import Limits
from dev_opsgpt.gateway.limits.shared import LocalLimits
from dev_opsgpt.protocol.errors import AuthenticationFailed, QuotaExceeded
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.keys import KeyStore, Terms
from dev_opsgpt.storage.tables import usage


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/opsgpt.db"


@pytest.fixture
def store(url: str) -> KeyStore:
    database = Database(url)
    database.upgrade()
    return KeyStore(database)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.02)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running(store: KeyStore, limits: Limits, clock: Clock) -> AsyncIterator[KeyRing]:
    ring = KeyRing(store, limits, wall=clock)
    await ring.reload()
    task = asyncio.create_task(ring.run())
    yield ring
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def reason(ring: KeyRing, key: str) -> str:
    with pytest.raises(AuthenticationFailed) as caught:
        ring.find(key)
    assert key not in caught.value.message
    return caught.value.message


async def test_a_key_and_its_terms(store: KeyStore) -> None:
    terms = Terms(owner="me", models=("a", "b"), rpm=5, priority=2, budget=1.5, expires_at=2000.0)
    row, key = store.create(terms, 1.0)
    async with running(store, LocalLimits(), Clock()) as ring:
        found = ring.find(key)
        assert found is not None
        assert (found.id, found.number, found.owner) == (row.id, 1, "me")
        assert found.models == {"a", "b"}
        assert (found.rpm, found.tpm, found.priority, found.budget) == (5, None, 2, 1.5)
        assert found.limited
        assert ring.key(row.id) is found
        assert len(ring) == 1
        for wrong in ("", key[:-1], key + "x", row.hash, "\xff"):
            assert ring.find(wrong) is None


async def test_who_remembers_keys_is_told_to_forget_them(store: KeyStore) -> None:
    ring = KeyRing(store, LocalLimits())
    seen: list[bool] = []
    _, key = store.create(Terms(), 1.0)
    ring.looked = lambda: seen.append(ring.find(key) is not None)
    await ring.reload()
    assert seen == [True]
    task = asyncio.create_task(ring.run())
    await until(lambda: len(seen) > 3)
    task.cancel()


async def test_changes_of_another_process_are_known_soon(store: KeyStore, url: str) -> None:
    elsewhere = KeyStore(Database(url))
    async with running(store, LocalLimits(), Clock()) as ring:
        assert len(ring) == 0
        row, key = elsewhere.create(Terms(rpm=1), 1.0)
        await until(lambda: ring.find(key))
        elsewhere.change(row.id, {"rpm": 2})
        await until(lambda: (found := ring.find(key)) is not None and found.rpm == 2)
        elsewhere.revoke(row.id, 2.0)
        await until(lambda: len(ring) == 1 and _ends(ring, key))
        assert reason(ring, key) == module.REVOKED


def _ends(ring: KeyRing, key: str) -> bool:
    try:
        ring.find(key)
    except AuthenticationFailed:
        return True
    return False


async def test_expiry_needs_nobody(store: KeyStore) -> None:
    clock = Clock()
    _, key = store.create(Terms(expires_at=1010.0), 1.0)
    async with running(store, LocalLimits(), clock) as ring:
        assert ring.find(key)
        clock.now = 1010.0
        assert reason(ring, key) == module.EXPIRED


async def test_the_old_text_ends_after_its_grace(store: KeyStore) -> None:
    clock = Clock()
    row, first = store.create(Terms(), 1.0)
    found = store.rotate(row.id, 60.0, clock.now)
    assert found is not None
    async with running(store, LocalLimits(), clock) as ring:
        assert ring.find(first) is ring.find(found[1])
        clock.now += 60
        assert reason(ring, first) == module.ROTATED
        assert ring.find(found[1])
        store.revoke(row.id, clock.now)
        await ring.reload()
        assert reason(ring, first) == reason(ring, found[1]) == module.REVOKED


def switch(link: Path, folder: Path) -> None:
    """Has a link lead to another folder."""
    new = link.with_suffix(".new")
    new.symlink_to(folder)
    new.replace(link)


async def test_a_database_that_is_away_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    switch(here, there)
    store = KeyStore(Database(f"sqlite:///{here}/opsgpt.db"))
    store._database.upgrade()
    _, key = store.create(Terms(), 1.0)
    async with running(store, LocalLimits(), Clock()) as ring:
        # At once for whoever opens it: it is always either there or not.
        switch(here, tmp_path / "nowhere")
        store._database.close()
        await until(lambda: "keys stay as they are" in caplog.text)
        await asyncio.sleep(0.1)
        assert ring.find(key)
        switch(here, there)
        await until(lambda: "read from the database again" in caplog.text)
        _, other = store.create(Terms(), 1.0)
        await until(lambda: ring.find(other))
    assert caplog.text.count("keys stay as they are") == 1


async def test_what_was_spent_before_counts(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPENT_POLL", 0.05)
    clock = Clock()
    clock.now = 1_000_000_000.0
    row, key = store.create(Terms(budget=1.0, budget_period="day"), 1.0)
    limits = LocalLimits(wall=clock)
    spend(store, row.id, clock.now - 100_000, 5.0)
    spend(store, row.id, clock.now, 0.75)
    async with running(store, limits, clock) as ring:
        found = ring.find(key)
        assert found is not None
        await limits.admit(found, 1)
        assert (await limits.used(found)).spent == 0.75
        # Of another machine's gateway.
        spend(store, row.id, clock.now, 0.5)
        async with asyncio.timeout(30):
            while (await limits.used(found)).spent < 1.25:
                await asyncio.sleep(0.01)
        with pytest.raises(QuotaExceeded):
            await limits.admit(found, 1)


class Forgetful(LocalLimits):
    """Limits that can lose what they counted, as a Redis that is started again does."""

    lost = False

    def forgot(self) -> bool:
        lost, self.lost = self.lost, False
        return lost


async def test_what_limits_forgot_is_told_them_again(store: KeyStore) -> None:
    clock = Clock()
    row, key = store.create(Terms(budget=1.0), 1.0)
    limits = Forgetful(wall=clock)
    async with running(store, limits, clock) as ring:
        found = ring.find(key)
        assert found is not None
        spend(store, row.id, clock.now, 5.0)
        limits.lost = True
        async with asyncio.timeout(10):
            while (await limits.used(found)).spent < 5.0:
                await asyncio.sleep(0.01)
        with pytest.raises(QuotaExceeded):
            await limits.admit(found, 1)


def spend(store: KeyStore, key: str, at: float, cost: float) -> None:
    texts = dict.fromkeys(
        ("request_id", "owner", "model", "served", "replica", "path", "client"), ""
    )
    row = {**texts, "stream": False, "status": 200, "attempts": 1, "queued": 0.0, "duration": 1.0}
    with store._database.write() as connection:
        connection.execute(insert(usage).values(**row, key=key, at=at, cost=cost))
