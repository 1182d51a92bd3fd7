"""The launcher's calls to the controller, to its own workers and to its own gateway."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec

from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.routing.cards import Bounds, Card, Part
from dev_opsgpt.transport.client import Client

ANSWER_LIMIT = 64 << 20
TIMEOUT = 5.0
# The controller pings every 2 s.
SILENCE = 7.0

T = TypeVar("T")


class CallFailed(Exception):
    """A call failed; the message says how, in one line and without secrets."""


class Command(msgspec.Struct):
    """What the controller asks of a launcher: start replicas of a model, stop the one at an
    address, load or unload a model; a ping asks nothing."""

    type: str
    id: str = ""
    model: str = ""
    address: str | None = None
    replicas: int | None = None
    demanded: bool = False


class Hello(msgspec.Struct, kw_only=True):
    """Who a launcher is: the ``models`` that it can start, a card for each of these that it runs
    itself, how much may be loaded, what is, and why others are not that were to be."""

    name: str
    models: list[str]
    cards: list[Card]
    bounds: Bounds
    parts: list[Part]
    released: list[str]
    failures: dict[str, str] = {}


class WorkerRow(msgspec.Struct):
    """What the launcher reads of a row of ``/list_workers``."""

    address: str
    models: list[str]


class _Workers(msgspec.Struct):
    workers: list[WorkerRow]


class _Health(msgspec.Struct):
    models: dict[str, int]
    needs_key: bool = False


class _Released(msgspec.Struct):
    code: int
    msg: str = ""


class Calls:
    """Calls inside the cluster, with its secret. Every method raises ``CallFailed``."""

    def __init__(self, controller: str, secret: str) -> None:
        self.controller = controller
        self._headers = {
            "authorization": f"Bearer {secret}",
            "content-type": "application/json",
        }
        self._client = Client(read_timeout=SILENCE)

    def close(self) -> None:
        """Ends all calls."""
        self._client.close()

    async def workers(self) -> list[WorkerRow]:
        """The rows of the controller's table."""
        return (await self._call("GET", self.controller, "/list_workers", _Workers)).workers

    async def replicas(self, gateway: str) -> dict[str, int]:
        """How many replicas a gateway knows of each model. Where several answer at one address,
        each call reaches any of them."""
        return (await self._call("GET", gateway, "/health", _Health)).models

    async def needs_key(self, gateway: str) -> bool:
        """Whether a gateway's callers need a key, be it configured or out of the database."""
        return (await self._call("GET", gateway, "/health", _Health)).needs_key

    async def release(self, worker: str) -> None:
        """Has one worker drain and leave, and its process go on."""
        reply = await self._call("POST", worker, "/release", _Released, {})
        if reply.code != 200:
            raise CallFailed(f"{worker} answered {reply.code}: {reply.msg}")

    async def commands(self, hello: Hello) -> AsyncIterator[Command]:
        """Connects as a launcher; commands as they come, pings left out."""
        body = msgspec.json.encode(hello)
        decoder = msgspec.json.Decoder(Command)
        try:
            response = await self._client.request(
                "POST", self.controller, path="/launchers/connect", headers=self._headers, body=body
            )
            try:
                if response.status != 200:
                    raise CallFailed(f"the controller answered {response.status}")
                rest = b""
                while data := await response.next():
                    *lines, rest = (rest + data).split(b"\n")
                    for command in map(decoder.decode, filter(None, lines)):
                        if command.type != "ping":
                            yield command
            finally:
                response.close()
        except (ApiError, msgspec.MsgspecError) as error:
            raise CallFailed(str(error)) from None

    async def announce(self, hello: Hello) -> None:
        """Tells what a launcher can start from now on."""
        await self._call("POST", self.controller, "/launchers/models", dict[str, Any], hello)

    async def report(
        self, name: str, parts: list[Part], released: list[str], failures: dict[str, str]
    ) -> None:
        """Tells what a launcher has loaded, what somebody has had stopped there, and why models do
        not run that were to."""
        body = {"name": name, "parts": parts, "released": released, "failures": failures}
        await self._call("POST", self.controller, "/launchers/report", dict[str, Any], body)

    async def reply(self, command: Command, ok: bool, message: str) -> None:
        """Tells how a command went."""
        body = {"id": command.id, "ok": ok, "msg": message}
        await self._call("POST", self.controller, "/launchers/reply", dict[str, Any], body)

    async def _call(self, method: str, url: str, path: str, answer: type[T], body: Any = None) -> T:
        data = b"" if body is None else msgspec.json.encode(body)
        # The gateway is the public's: the cluster's secret is no key of its clients.
        headers = {"connection": "close"} if path == "/health" else self._headers
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._client.request(
                    method, url, path=path, headers=headers, body=data
                )
                found = await response.read(ANSWER_LIMIT)
            if response.status != 200:
                raise CallFailed(f"{url}{path} answered {response.status}")
            return msgspec.json.decode(found, type=answer)
        except TimeoutError:
            raise CallFailed(f"{url}{path} did not answer within {TIMEOUT:g} s") from None
        except (ApiError, ValueError) as error:
            raise CallFailed(f"{url}{path}: {error}") from None
