"""Keys at rest: made, listed, changed, rotated, revoked. Only their hashes are kept."""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct, ValidationError, convert, structs
from sqlalchemy import Connection, Select, and_, func, insert, not_, or_, select, update

from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.storage.tables import keys, keys_version, usage

PREFIX = "sk-ops-"
# Of a key's characters, those that people are shown: the prefix and four more.
SHOWN = len(PREFIX) + 4
# 256 bits, written as 43 characters.
RANDOM_BYTES = 32
# A statement takes no more than some ten thousand values.
ASKED_AT_ONCE = 1000


class Terms(Struct, frozen=True, kw_only=True):
    """What is agreed with whoever holds a key: who that is, which models (None: all), limits (None:
    none), and Unix time at which it ends."""

    name: str = ""
    owner: str = ""
    models: tuple[str, ...] | None = None
    priority: int = 0
    rpm: int | None = None
    tpm: int | None = None
    concurrent: int | None = None
    budget: float | None = None
    budget_period: Literal["total", "day", "month"] = "total"
    expires_at: float | None = None


class StoredKey(Terms, frozen=True, kw_only=True):
    """A row of ``keys``."""

    id: str
    number: int
    hash: str
    old_hash: str | None = None
    old_until: float | None = None
    prefix: str
    created_at: float
    rotated_at: float | None = None
    revoked_at: float | None = None

    def active(self, at: float) -> bool:
        """Whether it is good at a Unix time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


class Revoked(Exception):
    """A revoked key cannot be changed."""


def digest(key: str) -> str:
    """What is kept of a key: its SHA-256 in hexadecimal digits. Keys are long and random, so a
    salt would add nothing."""
    return hashlib.sha256(key.encode()).hexdigest()


class KeyStore:
    """The keys in a database. All methods block and raise ``StorageError``; times are Unix
    seconds. A key's text is given once, by the method that makes it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, terms: Terms, at: float) -> tuple[StoredKey, str]:
        """Makes a key; the second is its text."""
        key = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
        with self._database.write() as connection:
            # First, so that who makes a key at the same time waits here for our number.
            _count_up(connection)
            highest = connection.scalar(select(func.max(keys.c.number)))
            made = StoredKey(
                id=f"key_{secrets.token_hex(8)}",
                number=(highest or 0) + 1,
                hash=digest(key),
                prefix=key[:SHOWN],
                created_at=at,
                **structs.asdict(terms),
            )
            connection.execute(insert(keys).values(structs.asdict(made)))
        return made, key

    def some(
        self,
        *,
        owner: str | None = None,
        active: bool | None = None,
        at: float = 0.0,
        after: int = 0,
        limit: int | None = None,
    ) -> list[StoredKey]:
        """The oldest keys whose ``number`` is above ``after``: an owner's, and those that are good
        or not at a time."""
        query = select(keys).where(keys.c.number > after).order_by(keys.c.number).limit(limit)
        if owner is not None:
            query = query.where(keys.c.owner == owner)
        if active is not None:
            expires = or_(keys.c.expires_at.is_(None), keys.c.expires_at > at)
            good = and_(keys.c.revoked_at.is_(None), expires)
            query = query.where(good if active else not_(good))
        with self._database.read() as connection:
            return _rows(connection, query)

    def load(self) -> tuple[int, list[StoredKey]]:
        """All keys, and the version that they are of or newer."""
        with self._database.read() as connection:
            return _version(connection), _rows(connection, select(keys))

    def version(self) -> int:
        """A number that grows with every change."""
        with self._database.read() as connection:
            return _version(connection)

    def get(self, id_: str) -> StoredKey | None:
        """One key."""
        with self._database.read() as connection:
            return _row(connection, id_)

    def change(self, id_: str, terms: Mapping[str, Any]) -> StoredKey | None:
        """Changes some of a key's terms. Raises ``Revoked``."""
        return self._change(id_, lambda _: terms)

    def rotate(self, id_: str, grace: float, at: float) -> tuple[StoredKey, str] | None:
        """Gives a key a new text; the old one is good for ``grace`` seconds more. One that was
        still good from the rotation before is not any more. Raises ``Revoked``."""
        key = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)

        def rotated(row: StoredKey) -> Mapping[str, Any]:
            return {
                "hash": digest(key),
                "prefix": key[:SHOWN],
                "old_hash": row.hash,
                "old_until": at + grace,
                "rotated_at": at,
            }

        changed = self._change(id_, rotated)
        return None if changed is None else (changed, key)

    def revoke(self, id_: str, at: float) -> StoredKey | None:
        """Ends a key for ever; one that has ended already is left as it is."""
        try:
            return self._change(id_, lambda _: {"revoked_at": at})
        except Revoked:
            return self.get(id_)

    def spent(self, ids: Sequence[str], since: float) -> dict[str, float]:
        """What these keys have spent since a time, by the records of usage."""
        found: dict[str, float] = {}
        total = func.coalesce(func.sum(usage.c.cost), 0.0)
        recent = select(usage.c.key, total).where(usage.c.at >= since).group_by(usage.c.key)
        with self._database.read() as connection:
            for begin in range(0, len(ids), ASKED_AT_ONCE):
                some = ids[begin : begin + ASKED_AT_ONCE]
                rows = connection.execute(recent.where(usage.c.key.in_(some)))
                found |= {key: float(amount) for key, amount in rows}
        return found

    def _change(
        self, id_: str, values: Callable[[StoredKey], Mapping[str, Any]]
    ) -> StoredKey | None:
        with self._database.write() as connection:
            _count_up(connection)
            row = _row(connection, id_)
            if row is None:
                return None
            if row.revoked_at is not None:
                raise Revoked
            new = dict(values(row))
            if new:
                connection.execute(update(keys).where(keys.c.id == id_).values(new))
            return _row(connection, id_)


def _count_up(connection: Connection) -> None:
    connection.execute(update(keys_version).values(version=keys_version.c.version + 1))


def _version(connection: Connection) -> int:
    return int(connection.scalar(select(keys_version.c.version)) or 0)


def _row(connection: Connection, id_: str) -> StoredKey | None:
    row = connection.execute(select(keys).where(keys.c.id == id_)).mappings().one_or_none()
    return None if row is None else _stored(row)


def _rows(connection: Connection, query: Select[Any]) -> list[StoredKey]:
    return [_stored(row) for row in connection.execute(query).mappings()]


def _stored(row: Mapping[Any, Any]) -> StoredKey:
    try:
        return convert({str(name): value for name, value in row.items()}, StoredKey)
    except ValidationError as error:
        raise StorageError(f"The row of the key '{row['id']}' is damaged: {error}") from None
