"""The controller's routes that FastChat does not have."""

from fastapi import Request
from starlette.responses import Response

from dev_opsgpt.controller import http
from dev_opsgpt.controller.launchers import Launchers
from dev_opsgpt.controller.messages import (
    Deregister,
    Drain,
    Health,
    LauncherHello,
    LauncherReply,
    ReleaseRequest,
    WorkerList,
)
from dev_opsgpt.controller.registry import Registry
from dev_opsgpt.controller.release import Releases
from dev_opsgpt.controller.streaming import Stream
from dev_opsgpt.protocol.fastchat import Exist
from dev_opsgpt.routing.updates import Reason

NDJSON = "application/x-ndjson"


class OpsgptRoutes:
    """The handlers."""

    def __init__(self, registry: Registry, launchers: Launchers, releases: Releases) -> None:
        self._registry = registry
        self._launchers = launchers
        self._releases = releases

    async def deregister_worker(self, request: Request) -> Response:
        """A worker leaves; ``{exist}`` tells whether it was known."""
        message = await http.body(request, Deregister)
        reason: Reason = "unhealthy" if message.returns else "left"
        return http.reply(Exist(self._registry.remove(message.worker_name, reason)))

    async def drain_worker(self, request: Request) -> Response:
        """Takes a worker out of service or back; ``{exist}`` tells whether it is known."""
        message = await http.body(request, Drain)
        return http.reply(Exist(self._registry.drain(message.worker_name, message.drain)))

    async def list_workers(self, _: Request) -> Response:
        """``{workers}``: every row."""
        return http.reply(WorkerList(self._registry.table.workers()))

    async def watch(self, _: Request) -> Response:
        """The table and its changes, line by line, for as long as the client stays."""
        return Stream(self._registry.watch(), NDJSON)

    async def release_worker(self, request: Request) -> Response:
        """Stops, starts or replaces a model; ``{code, msg}`` when it is done or has failed."""
        return http.reply(await self._releases.release(await http.body(request, ReleaseRequest)))

    async def connect_launcher(self, request: Request) -> Response:
        """Commands for a launcher, line by line, for as long as it stays."""
        return Stream(self._launchers.connect(await http.body(request, LauncherHello)), NDJSON)

    async def launcher_models(self, request: Request) -> Response:
        """What a launcher can start has changed; ``{exist}`` tells whether it is connected."""
        hello = await http.body(request, LauncherHello)
        return http.reply(Exist(self._launchers.announce(hello)))

    async def launcher_reply(self, request: Request) -> Response:
        """A launcher's answer to a command; ``{exist}`` tells whether somebody waited for it."""
        return http.reply(Exist(self._launchers.reply(await http.body(request, LauncherReply))))

    async def health(self, _: Request) -> Response:
        """That the controller lives, and how many workers and models it knows."""
        table = self._registry.table
        return http.reply(Health("ok", len(table), len(table.models())))
