"""Keys at rest, in both databases: what is kept, and that the key itself is not."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.storage.keys import KeyStore, Revoked, StoredKey, Terms, digest
from dev_opsgpt.storage.tables import keys, usage

ALL = Terms(
    name="Bot «1»",
    owner="team-a",
    models=("tiny-chat", "example"),
    priority=-3,
    rpm=60,
    tpm=100_000,
    concurrent=5,
    budget=12.5,
    budget_period="month",
    expires_at=2_000_000_000.5,
)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    found = Database(url)
    found.upgrade()
    yield found
    found.close()


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


def test_a_key_is_made_and_read_back(store: KeyStore) -> None:
    row, key = store.create(ALL, 1000.25)
    assert row == StoredKey(
        id=row.id,
        number=1,
        hash=digest(key),
        prefix=key[:11],
        created_at=1000.25,
        name="Bot «1»",
        owner="team-a",
        models=("tiny-chat", "example"),
        priority=-3,
        rpm=60,
        tpm=100_000,
        concurrent=5,
        budget=12.5,
        budget_period="month",
        expires_at=2_000_000_000.5,
    )
    assert key.startswith("sk-ops-")
    assert len(key) == 7 + 43
    assert row.id.startswith("key_")
    assert store.get(row.id) == row
    plain, other = store.create(Terms(), 2.0)
    assert other != key
    assert (plain.number, plain.models, plain.rpm) == (2, None, None)
    assert store.some() == [row, plain]
    assert store.get("key_0") is None


def test_every_change_counts_the_version_up(store: KeyStore) -> None:
    seen = [store.version()]
    row, _ = store.create(ALL, 1.0)
    seen.append(store.version())
    changed = store.change(row.id, {"rpm": None, "models": None, "name": "x"})
    assert changed is not None
    assert (changed.rpm, changed.models, changed.name, changed.tpm) == (None, None, "x", 100_000)
    seen.append(store.version())
    store.rotate(row.id, 0.0, 2.0)
    seen.append(store.version())
    store.revoke(row.id, 3.0)
    seen.append(store.version())
    assert seen == sorted(set(seen))
    assert store.load() == (seen[-1], store.some())


def test_no_models_are_null_to_the_database_too(database: Database, store: KeyStore) -> None:
    row, _ = store.create(ALL, 1.0)
    store.change(row.id, {"models": None})
    with database.read() as connection:
        assert connection.scalar(select(keys.c.id).where(keys.c.models.is_(None))) == row.id


def test_rotation(store: KeyStore) -> None:
    row, first = store.create(ALL, 1.0)
    found = store.rotate(row.id, 60.0, 100.0)
    assert found is not None
    changed, second = found
    assert changed.hash == digest(second) != digest(first) == changed.old_hash
    assert (changed.old_until, changed.rotated_at) == (160.0, 100.0)
    assert (changed.id, changed.number, changed.rpm) == (row.id, row.number, 60)
    assert changed.prefix == second[:11]
    found = store.rotate(row.id, 0.0, 110.0)
    assert found is not None
    assert found[0].old_hash == digest(second)
    assert store.rotate("key_0", 0.0, 1.0) is None


def test_revoked_for_ever(store: KeyStore) -> None:
    row, _ = store.create(Terms(), 1.0)
    assert row.active(2.0)
    ended = store.revoke(row.id, 5.0)
    assert ended is not None
    assert ended.revoked_at == 5.0
    assert not ended.active(6.0)
    assert store.revoke(row.id, 9.0) == ended
    with pytest.raises(Revoked):
        store.change(row.id, {"rpm": 1})
    with pytest.raises(Revoked):
        store.rotate(row.id, 0.0, 1.0)
    assert store.revoke("key_0", 1.0) is None
    assert store.change("key_0", {}) is None


def test_active() -> None:
    row = StoredKey(id="key_1", number=1, hash="", prefix="", created_at=0.0, expires_at=10.0)
    assert row.active(9.9)
    assert not row.active(10.0)


def test_lists_of_some(store: KeyStore) -> None:
    for number in range(6):
        owner = "even" if number % 2 == 0 else "odd"
        store.create(Terms(name=str(number), owner=owner, expires_at=10.0 + number), 1.0)
    rows = store.some()
    store.revoke(rows[5].id, 2.0)

    def names(**chosen: Any) -> str:
        return "".join(row.name for row in store.some(**chosen))

    assert names() == "012345"
    assert names(owner="even") == "024"
    assert names(owner="nobody") == ""
    assert names(after=2, limit=2) == "23"
    for at in (0.0, 11.0, 12.5, 99.0):
        good = [row.name for row in store.some() if row.active(at)]
        assert names(active=True, at=at) == "".join(good)
        assert names(active=False, at=at) == "".join(sorted(set("012345") - set(good)))
    assert names(active=True, at=11.5, owner="odd", after=2, limit=1) == "3"


def test_numbers_are_never_given_twice(store: KeyStore) -> None:
    def make() -> None:
        for _ in range(5):
            store.create(Terms(), 1.0)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.number for row in store.some()] == list(range(1, 21))


def test_no_key_is_in_the_database(url: str, database: Database, store: KeyStore) -> None:
    row, first = store.create(ALL, 1.0)
    found = store.rotate(row.id, 3600.0, 2.0)
    assert found is not None
    with database.read() as connection:
        text_ = str(connection.execute(text("SELECT * FROM keys")).all())
    for key in (first, found[1]):
        assert key not in text_
        assert key[12:] not in text_
    if url.startswith("sqlite"):
        for path in Path(url.removeprefix("sqlite:///")).parent.iterdir():
            data = path.read_bytes()
            assert first.encode()[12:] not in data
            assert found[1].encode()[12:] not in data


def test_what_was_spent(database: Database, store: KeyStore) -> None:
    texts = dict.fromkeys(
        ("request_id", "owner", "model", "served", "replica", "path", "client"), ""
    )
    row = {**texts, "stream": False, "status": 200, "attempts": 1, "queued": 0.0, "duration": 1.0}
    spent = [("a", 1.0, 0.5), ("a", 2.0, 0.25), ("a", 3.0, None), ("b", 5.0, 1.0), ("c", 9.0, 7.0)]
    rows = [{**row, "key": key, "at": at, "cost": cost} for key, at, cost in spent]
    with database.write() as connection:
        connection.execute(insert(usage), rows)
    ids = ["a", "b", *(f"key_{number}" for number in range(2500))]
    assert store.spent(ids, 0.0) == {"a": 0.75, "b": 1.0}
    assert store.spent(ids, 2.0) == {"a": 0.25, "b": 1.0}
    assert store.spent([], 2.0) == {}


def test_a_row_that_somebody_spoilt_is_named(database: Database, store: KeyStore) -> None:
    row, _ = store.create(Terms(), 1.0)
    with database.write() as connection:
        connection.execute(text("UPDATE keys SET budget_period = 'week'"))
    with pytest.raises(StorageError, match=row.id):
        store.load()
