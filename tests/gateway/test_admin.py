"""The admin API over real HTTP: two gateways on one database."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from dev_opsgpt.gateway import key_ring as key_rings
from dev_opsgpt.gateway.admin import MAX_BODY, Admin, create_admin
from dev_opsgpt.gateway.auth import admin_check
from dev_opsgpt.gateway.key_ring import KeyRing
from dev_opsgpt.gateway.limits.shared import LocalLimits
from dev_opsgpt.protocol import errors
from dev_opsgpt.protocol.errors import ApiError, AuthenticationFailed
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.keys import KeyStore
from dev_opsgpt.transport.server import Server, bind

ADMIN_KEY = "the admin's own key"
SECRET = {"authorization": f"Bearer {ADMIN_KEY}"}


class Gateway:
    """One gateway's keys, limits and admin API; ``client`` calls it with the admin key."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.store = KeyStore(self.database)
        self.limits = LocalLimits()
        self.ring = KeyRing(self.store, self.limits)
        self.client: httpx.AsyncClient

    def app(self) -> FastAPI:
        app = FastAPI()
        admin = Admin(self.store, self.ring, self.limits)
        app.include_router(create_admin(admin, admin_check([ADMIN_KEY], None)))

        @app.exception_handler(ApiError)
        def answer(_: Request, error: ApiError) -> JSONResponse:
            headers = errors.headers(error)
            return JSONResponse(errors.openai_body(error), error.status, headers=headers)

        return app

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Gateway"]:
        self.database.upgrade()
        await self.ring.reload()
        task = asyncio.create_task(self.ring.run())
        server = Server(self.app(), bind("127.0.0.1", 0), drain_timeout=1)
        await server.start()
        url = f"http://127.0.0.1:{server.port}/admin"
        async with httpx.AsyncClient(base_url=url, headers=SECRET, timeout=30) as self.client:
            yield self
        await server.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.database.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/opsgpt.db"


@pytest.fixture
async def gateway(url: str) -> AsyncIterator[Gateway]:
    async with Gateway(url).running() as found:
        yield found


async def create(gateway: Gateway, **body: Any) -> dict[str, Any]:
    response = await gateway.client.post("/keys", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


async def test_a_key_from_creation_to_revocation(gateway: Gateway) -> None:
    expires = time.time() + 1000
    terms = {
        "name": "bot",
        "owner": "team-a",
        "models": ["tiny-chat", "example"],
        "priority": 7,
        "rpm": 60,
        "tpm": 1000,
        "concurrent": 4,
        "budget": 2.5,
        "budget_period": "day",
        "expires_at": expires,
    }
    made = await create(gateway, **terms)
    key = made.pop("key")
    assert {name: made[name] for name in terms} == terms
    assert made["active"] is True
    assert key.startswith(made["prefix"])
    assert made["used"] == {"requests": 0, "tokens": 0, "concurrent": 0, "spent": 0.0}
    # Good at once in the gateway that made it.
    found = gateway.ring.find(key)
    assert found is not None

    lease = await gateway.limits.admit(found, 100)
    shown = (await gateway.client.get(f"/keys/{made['id']}")).json()
    assert shown["used"] == {"requests": 1, "tokens": 100, "concurrent": 1, "spent": 0.0}
    gateway.limits.settle(lease, 50, 0.5)
    (listed,) = (await gateway.client.get("/keys")).json()["data"]
    assert listed["used"] == {"requests": 1, "tokens": 50, "concurrent": 0, "spent": 0.5}
    assert "key" not in listed
    assert "hash" not in listed

    change = {"rpm": None, "models": None, "name": "robot", "expires_at": None}
    changed = (await gateway.client.patch(f"/keys/{made['id']}", json=change)).json()
    assert {name: changed[name] for name in change} == change
    assert (changed["tpm"], changed["owner"]) == (1000, "team-a")
    assert changed["used"]["requests"] is None

    rotated = await gateway.client.post(f"/keys/{made['id']}/rotate", json={"grace": 60})
    new = rotated.json()["key"]
    assert gateway.ring.find(new) is gateway.ring.find(key) is not None
    assert rotated.json()["old_until"] == pytest.approx(time.time() + 60, abs=5)
    newest = (await gateway.client.post(f"/keys/{made['id']}/rotate", json={})).json()["key"]
    with pytest.raises(AuthenticationFailed, match="replaced"):
        gateway.ring.find(new)
    assert gateway.ring.find(key) is None

    ended = (await gateway.client.delete(f"/keys/{made['id']}")).json()
    assert ended["active"] is False
    assert ended["revoked_at"] == pytest.approx(time.time(), abs=5)
    with pytest.raises(AuthenticationFailed, match="revoked"):
        gateway.ring.find(newest)
    again = await gateway.client.delete(f"/keys/{made['id']}")
    assert again.json()["revoked_at"] == ended["revoked_at"]
    refused = await gateway.client.patch(f"/keys/{made['id']}", json={"rpm": 1})
    assert error(refused, 400)["code"] == "key_revoked"


async def test_other_gateways_know_within_a_moment(
    gateway: Gateway, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_rings, "POLL", 0.02)
    async with Gateway(url).running() as other:
        made = await create(gateway)
        async with asyncio.timeout(30):
            while other.ring.find(made["key"]) is None:
                await asyncio.sleep(0.01)
        await other.client.delete(f"/keys/{made['id']}")
        async with asyncio.timeout(30):
            while True:
                try:
                    gateway.ring.find(made["key"])
                except AuthenticationFailed:
                    break
                await asyncio.sleep(0.01)


async def test_lists_by_owner_and_state(gateway: Gateway) -> None:
    names = {}
    for name, owner in (("one", "a"), ("two", "b"), ("three", "a")):
        names[name] = (await create(gateway, name=name, owner=owner))["id"]
    await gateway.client.delete(f"/keys/{names['one']}")

    async def listed(query: str) -> list[str]:
        response = await gateway.client.get(f"/keys{query}")
        assert response.json()["object"] == "list"
        return [row["name"] for row in response.json()["data"]]

    assert await listed("") == ["one", "two", "three"]
    assert await listed("?owner=a") == ["one", "three"]
    assert await listed("?active=true") == ["two", "three"]
    assert await listed("?owner=a&active=false") == ["one"]
    assert await listed("?owner=nobody") == []
    for query, param in (
        ("active=perhaps", "active"),
        ("owner=a%00b", "owner"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
    ):
        assert error(await gateway.client.get(f"/keys?{query}"), 400)["param"] == param


async def test_lists_in_pages(gateway: Gateway) -> None:
    ids = [(await create(gateway))["id"] for _ in range(5)]
    first = (await gateway.client.get("/keys?limit=3")).json()
    assert ([row["id"] for row in first["data"]], first["has_more"]) == (ids[:3], True)
    rest = (await gateway.client.get(f"/keys?limit=2&after={ids[2]}")).json()
    assert ([row["id"] for row in rest["data"]], rest["has_more"]) == (ids[3:], False)
    for wrong in ("key_0123456789abcdef", "x%00"):
        response = await gateway.client.get(f"/keys?after={wrong}")
        assert error(response, 404)["param"] == "after"


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", "Basic x", "Bearer ÿ"])
async def test_nobody_else_comes_in(gateway: Gateway, authorization: str | None) -> None:
    made = await create(gateway)
    headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}
    async with httpx.AsyncClient(base_url=gateway.client.base_url) as client:
        for method, path in (
            ("POST", "/keys"),
            ("GET", "/keys"),
            ("GET", f"/keys/{made['id']}"),
            ("PATCH", f"/keys/{made['id']}"),
            ("POST", f"/keys/{made['id']}/rotate"),
            ("DELETE", f"/keys/{made['id']}"),
        ):
            # Before anything of it is read: not even broken JSON is told.
            response = await client.request(method, path, headers=headers, content=b"{broken")
            found = error(response, 401)
            assert found["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
        own = {"authorization": f"Bearer {made['key']}"}
        error(await client.get("/keys", headers=own), 401)
    assert gateway.ring.find(made["key"])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", [5, None, "x" * 201, "a\nb", "a\x00", "\ud800"]),
        ("owner", [[], True, "\x1b[2J"]),
        ("models", ["tiny-chat", [], [""], [5], ["a"] * 1001, {}, ["\x1b[2J"]]),
        ("priority", [None, 1.5, "1", 1001, True]),
        ("rpm", [0, -1, 1.5, "60", True, 2**31, [1]]),
        ("tpm", [0, 2**63, 1e3]),
        ("concurrent", [0, "x"]),
        ("budget", [0, -1, "1", 1e16]),
        ("budget_period", ["week", None, 1]),
        ("expires_at", ["2030-01-01", -1, 1.0, 1e12, True]),
        ("rmp", [60]),
        ("id", ["key_0000000000000000"]),
        ("hash", ["x"]),
    ],
)
async def test_every_error_names_its_field(gateway: Gateway, field: str, values: list[Any]) -> None:
    made = await create(gateway)
    for value in values:
        for method, path in (("POST", "/keys"), ("PATCH", f"/keys/{made['id']}")):
            body = json.dumps({field: value})
            response = await gateway.client.request(method, path, content=body, headers=JSON)
            found = error(response, 400)
            assert found["param"].split(".")[0] == field, value
            assert f"'{found['param']}'" in found["message"]
    (row,) = (await gateway.client.get("/keys")).json()["data"]
    assert row == {name: value for name, value in made.items() if name != "key"}


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"5", b'{"budget": NaN}', b"\xff", b"[" * 60_000]
)
async def test_bodies_that_are_no_objects(gateway: Gateway, text: bytes) -> None:
    made = await create(gateway)
    for method, path in (("POST", "/keys"), ("PATCH", f"/keys/{made['id']}")):
        response = await gateway.client.request(method, path, content=text, headers=JSON)
        found = error(response, 400)
        assert found["type"] == "invalid_request_error"
    for grace in (-1, "1h", None, 1e10):
        response = await gateway.client.post(f"/keys/{made['id']}/rotate", json={"grace": grace})
        assert error(response, 400)["param"] == "grace"


async def test_large_bodies_are_refused(gateway: Gateway) -> None:
    response = await gateway.client.post("/keys", content=b" " * (MAX_BODY + 1), headers=JSON)
    error(response, 413)


@pytest.mark.parametrize("id_", ["key_0123456789abcdef", "x", "a%00b", "%F0%9F", "' OR 1=1 --"])
async def test_unknown_keys(gateway: Gateway, id_: str) -> None:
    for method, path in (
        ("GET", f"/keys/{id_}"),
        ("PATCH", f"/keys/{id_}"),
        ("POST", f"/keys/{id_}/rotate"),
        ("DELETE", f"/keys/{id_}"),
    ):
        body = None if method in ("GET", "DELETE") else {}
        response = await gateway.client.request(method, path, json=body)
        assert error(response, 404)["param"] == "id"


async def test_a_database_that_is_away_is_told(gateway: Gateway, url: str, tmp_path: Path) -> None:
    made = await create(gateway)
    gateway.database.close()
    path = Path(url.removeprefix("sqlite:///"))
    path.rename(tmp_path / "elsewhere")
    path.mkdir()
    found = error(await gateway.client.get("/keys"), 503)
    assert found["code"] == "database_unavailable"
    assert gateway.ring.find(made["key"])


async def test_keys_are_in_no_log(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = await create(gateway, name="bot")
    rotated = await gateway.client.post(f"/keys/{made['id']}/rotate", json={"grace": 5})
    await gateway.client.get(f"/keys/{made['id']}")
    assert caplog.text
    for key in (made["key"], rotated.json()["key"]):
        assert key[11:] not in caplog.text
    assert ADMIN_KEY not in caplog.text


async def test_the_api_describes_itself(gateway: Gateway) -> None:
    document = gateway.app().openapi()
    assert set(document["paths"]) == {
        "/admin/keys",
        "/admin/keys/{id}",
        "/admin/keys/{id}/rotate",
    }
    assert document["components"]["schemas"]["CreateKey"]["properties"]["rpm"]
