"""The keys out of the database, kept in memory: looked up by every request, and read again when
somebody has changed them."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable

from msgspec import Struct

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits.lease import Limits
from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.routing.limits import Period, span
from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.storage.keys import KeyStore, StoredKey

log = logging.getLogger(__name__)

# Seconds between two looks at the keys' version.
POLL = 0.5
# Seconds between two looks at what was spent by the records of usage, where machines count apart.
SPENT_POLL = 60.0
REVOKED = "This API key has been revoked."
EXPIRED = "This API key has expired."
ROTATED = "This API key has been replaced by a new one."


class KeyRing:
    """The keys by their hashes. ``wall`` is Unix time.

    While the database is away, the keys that were there stay good. ``looked`` is called when they
    have been read, and twice a second: whoever remembers what ``find`` gave forgets it then.
    """

    def __init__(
        self, store: KeyStore, limits: Limits, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._limits = limits
        self._wall = wall
        self._version = -1
        self._reading = asyncio.Lock()
        self._by_hash: dict[bytes, _Entry] = {}
        self._by_id: dict[str, Key] = {}
        self._away = False
        self.looked: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        """How many keys there are, those that are not good any more among them: a gateway whose
        last key was revoked is not open to all."""
        return len(self._by_id)

    def find(self, token: str) -> Key | None:
        """The key with this text, None for none. Raises ``AuthenticationFailed`` for one that has
        expired or was revoked.

        Looked up by its hash, which a caller cannot steer, so the time tells nothing.
        """
        entry = self._by_hash.get(hashlib.sha256(token.encode()).digest())
        if entry is None:
            return None
        if entry.until is not None and self._wall() >= entry.until:
            raise AuthenticationFailed(entry.reason)
        return entry.key

    def key(self, id_: str) -> Key | None:
        """A key by its public identifier, good or not."""
        return self._by_id.get(id_)

    async def reload(self) -> None:
        """Reads the keys, and what those with a budget have spent. Raises ``StorageError``."""
        # One after the other: what was read first must not replace what was read last.
        async with self._reading:
            read = await asyncio.to_thread(self._read)
            self._version, self._by_hash, self._by_id = read
            self.looked()
            await self._read_spent()

    async def look(self) -> None:
        """Reads the keys where they have changed. Raises ``StorageError``."""
        if await asyncio.to_thread(self._store.version) != self._version:
            await self.reload()

    async def run(self) -> None:
        """Keeps the keys as they are in the database, for as long as it is not cancelled."""
        spent_at = time.monotonic()
        while True:
            await asyncio.sleep(POLL)
            self.looked()
            try:
                if await asyncio.to_thread(self._store.version) != self._version:
                    await self.reload()
                elif self._limits.forgot() or time.monotonic() - spent_at > SPENT_POLL:
                    spent_at = time.monotonic()
                    await self._read_spent()
            except StorageError as error:
                if not self._away:
                    log.warning("keys stay as they are: %s", error)
                self._away = True
                continue
            if self._away:
                log.info("keys are read from the database again")
            self._away = False

    def _read(self) -> "tuple[int, dict[bytes, _Entry], dict[str, Key]]":
        """In a thread: with thousands of keys it takes longer than the event loop can wait."""
        version, rows = self._store.load()
        by_hash: dict[bytes, _Entry] = {}
        by_id = {}
        for row in rows:
            by_id[row.id] = key = _key(row)
            by_hash[bytes.fromhex(row.hash)] = _entry(row, key)
            if row.old_hash is not None:
                by_hash[bytes.fromhex(row.old_hash)] = _old_entry(row, key)
        return version, by_hash, by_id

    async def _read_spent(self) -> None:
        """Counters begin anew with the machine, and count one machine only; the records of usage
        know all that was spent, if a little late."""
        at = self._wall()
        periods: dict[Period, list[Key]] = {}
        for key in self._by_id.values():
            if key.budget is not None:
                periods.setdefault(key.budget_period, []).append(key)
        for period, keys in periods.items():
            ids = [key.id for key in keys]
            since = span(period, at).begin
            found = await asyncio.to_thread(self._store.spent, ids, since)
            for key in keys:
                await self._limits.spent(key, at, found.get(key.id, 0.0))
                await asyncio.sleep(0)


class _Entry(Struct, frozen=True):
    """A text of a key: until when it is good, and what is said then."""

    key: Key
    until: float | None
    reason: str


def _key(row: StoredKey) -> Key:
    terms = {name: getattr(row, name) for name in Key.__struct_fields__ if name != "models"}
    return Key(models=None if row.models is None else frozenset(row.models), **terms)


def _entry(row: StoredKey, key: Key) -> _Entry:
    if row.revoked_at is not None:
        return _Entry(key, 0.0, REVOKED)
    return _Entry(key, row.expires_at, EXPIRED)


def _old_entry(row: StoredKey, key: Key) -> _Entry:
    entry = _entry(row, key)
    until = row.old_until or 0.0
    if entry.until is not None and entry.until <= until:
        return entry
    return _Entry(key, until, ROTATED)
