"""The admin API: keys made, listed, changed, rotated and revoked over HTTP, by whoever has an admin
key."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from dev_opsgpt.gateway.admin_models import (
    PRINTABLE,
    CreatedKey,
    CreateKey,
    KeyList,
    RotateKey,
    ShownKey,
    UpdateKey,
    UsedNow,
)
from dev_opsgpt.gateway.bodies import explain, held, no_json
from dev_opsgpt.gateway.key_ring import KeyRing
from dev_opsgpt.gateway.limits.lease import Limits
from dev_opsgpt.protocol.errors import (
    AuthenticationFailed,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.storage.keys import KeyStore, Revoked, StoredKey, Terms
from dev_opsgpt.transport.asgi import bearer

Allowed = Callable[[str | None], bool]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
_ID = re.compile(r"key_[0-9a-f]{16}")
ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "No admin key, or a wrong one."},
    "4XX": {"description": "The request is wrong; the error names the field."},
    503: {"description": "The database cannot be reached now."},
}


class Admin:
    """What the routes do. ``tell_others`` is called after each change; ``wall`` is Unix time."""

    def __init__(
        self,
        store: KeyStore,
        ring: KeyRing,
        limits: Limits,
        tell_others: Callable[[], Awaitable[None]] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._ring = ring
        self._limits = limits
        self._tell_others = tell_others
        self._wall = wall

    async def create(self, body: CreateKey) -> CreatedKey:
        """Makes a key."""
        terms = Terms(**self._terms(body.model_dump()))
        row, key = await asyncio.to_thread(self._store.create, terms, self._wall())
        log.info("the key %s was made", row.id)
        await self._reload()
        return CreatedKey(key=key, **await self._shown(row))

    async def list(
        self, owner: str | None, active: bool | None, after: str | None, limit: int
    ) -> KeyList:
        """The first keys that match, those behind the key ``after``. Raises ``NotFound``."""
        begin = 0
        if after is not None:
            row = await asyncio.to_thread(self._store.get, _checked(after, "after"))
            begin = _found(row, after, "after").number
        # One more tells whether there are more.
        rows = await asyncio.to_thread(
            self._store.some,
            owner=owner,
            active=active,
            at=self._wall(),
            after=begin,
            limit=limit + 1,
        )
        data = [ShownKey(**await self._shown(row)) for row in rows[:limit]]
        return KeyList(data=data, has_more=len(rows) > limit)

    async def get(self, id_: str) -> ShownKey:
        """One key. Raises ``NotFound``."""
        row = await asyncio.to_thread(self._store.get, _checked(id_))
        return ShownKey(**await self._shown(_found(row, id_)))

    async def update(self, id_: str, body: UpdateKey) -> ShownKey:
        """Changes what the body names. Raises ``NotFound``, ``InvalidRequest``."""
        terms = self._terms(body.model_dump(exclude_unset=True))
        row = await self._changed(id_, self._store.change, terms)
        return ShownKey(**await self._shown(row))

    async def rotate(self, id_: str, body: RotateKey) -> CreatedKey:
        """Gives a key a new text. Raises ``NotFound``, ``InvalidRequest``."""
        row, key = await self._changed(id_, self._store.rotate, body.grace, self._wall())
        return CreatedKey(key=key, **await self._shown(row))

    async def revoke(self, id_: str) -> ShownKey:
        """Ends a key. Raises ``NotFound``."""
        row = await self._changed(id_, self._store.revoke, self._wall())
        return ShownKey(**await self._shown(row))

    async def _changed(self, id_: str, change: Callable[..., Any], *arguments: Any) -> Any:
        try:
            found = await asyncio.to_thread(change, _checked(id_), *arguments)
        except Revoked:
            message = f"The key '{id_}' has been revoked; make a new one."
            raise InvalidRequest(message, code="key_revoked") from None
        found = _found(found, id_)
        log.info("the key %s was changed: %s", id_, change.__name__)
        await self._reload()
        return found

    async def _reload(self) -> None:
        # The change is made; a database that goes away now must not hide that.
        with contextlib.suppress(StorageError):
            await self._ring.reload()
        if self._tell_others is not None:
            await self._tell_others()

    def _terms(self, given: dict[str, Any]) -> dict[str, Any]:
        expires_at = given.get("expires_at")
        if expires_at is not None and expires_at <= self._wall():
            raise InvalidRequest("'expires_at': must lie in the future", param="expires_at")
        if given.get("models") is not None:
            given["models"] = tuple(dict.fromkeys(given["models"]))
        return given

    async def _shown(self, row: StoredKey) -> dict[str, Any]:
        """What people are told of a key: its terms, its state, and what it uses now."""
        shown = {name: getattr(row, name) for name in ShownKey.model_fields if hasattr(row, name)}
        at = self._wall()
        shown["active"] = row.active(at)
        shown["old_until"] = row.old_until if (row.old_until or 0.0) > at else None
        key = self._ring.key(row.id)
        used = await self._limits.used(key) if key is not None and key.limited else None
        return shown | {"used": UsedNow.of(key, used) if key and used else UsedNow()}


def create_admin(admin: Admin, allowed: Allowed) -> APIRouter:
    """The routes below ``/admin``; ``allowed`` tells whether a token is an admin key. Their errors
    are ``ApiError``s."""
    router = APIRouter(
        prefix="/admin", tags=["admin"], route_class=guarded_by(allowed), responses=ERRORS
    )

    @router.post("/keys")
    async def create_key(body: CreateKey) -> CreatedKey:
        """Makes a key. Its text is in this answer and nowhere else, ever."""
        return await admin.create(body)

    @router.get("/keys")
    async def list_keys(
        owner: Annotated[
            str | None, Query(max_length=200, pattern=PRINTABLE, description="Only this owner's.")
        ] = None,
        active: Annotated[
            bool | None, Query(description="Only those that are good, or that are not.")
        ] = None,
        after: Annotated[
            str | None, Query(description="Only those behind this one, by its identifier.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
    ) -> KeyList:
        """The keys, the oldest first, with what each uses of its limits now."""
        return await admin.list(owner, active, after, limit)

    @router.get("/keys/{id}")
    async def get_key(id: str) -> ShownKey:
        """One key."""
        return await admin.get(id)

    @router.patch("/keys/{id}")
    async def update_key(id: str, body: UpdateKey) -> ShownKey:
        """Changes the fields that are given; null takes a limit away."""
        return await admin.update(id, body)

    @router.post("/keys/{id}/rotate")
    async def rotate_key(id: str, body: RotateKey) -> CreatedKey:
        """Gives the key a new text; limits, usage and the identifier stay."""
        return await admin.rotate(id, body)

    @router.delete("/keys/{id}")
    async def revoke_key(id: str) -> ShownKey:
        """Ends the key for ever. What it used stays on record."""
        return await admin.revoke(id)

    return router


def _checked(id_: str, param: str = "id") -> str:
    """An identifier that could be one: no database is asked for anything else."""
    if _ID.fullmatch(id_) is None:
        raise NotFound("There is no such key.", param=param)
    return id_


def _found(row: Any, id_: str, param: str = "id") -> Any:
    if row is None:
        raise NotFound(f"There is no key '{id_}'.", param=param)
    return row


def guarded_by(allowed: Allowed) -> type[APIRoute]:
    """A kind of route that looks at the admin key before it reads anything else, takes no more
    than a small body, and tells every error as an ``ApiError``."""

    class Guarded(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                if not allowed(bearer(request.scope)):
                    raise AuthenticationFailed("This route needs an admin key as a Bearer token.")
                request = await held(request, MAX_BODY)
                try:
                    return await handle(request)
                except RequestValidationError as error:
                    raise explain(error) from None
                except HTTPException:
                    # No UTF-8, or nested too deeply.
                    raise no_json() from None
                except StorageError as error:
                    raise Unavailable(str(error), code="database_unavailable") from None

            return guarded

    return Guarded
