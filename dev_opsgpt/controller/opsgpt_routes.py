"""The controller's routes that FastChat does not have."""

from fastapi import Request
from starlette.responses import Response

from dev_opsgpt.controller import http
from dev_opsgpt.controller.by_hand import ByHand
from dev_opsgpt.controller.launchers import Launchers
from dev_opsgpt.controller.loads import Loads
from dev_opsgpt.controller.messages import (
    Deregister,
    Drain,
    Health,
    LauncherHello,
    LauncherReply,
    LauncherReport,
    LoadRequest,
    ModelTable,
    ReleaseRequest,
    ScaleRequest,
    UnloadRequest,
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

    def __init__(
        self,
        registry: Registry,
        launchers: Launchers,
        releases: Releases,
        loads: Loads,
        by_hand: ByHand,
    ) -> None:
        self._registry = registry
        self._launchers = launchers
        self._releases = releases
        self._loads = loads
        self._by_hand = by_hand

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

    async def watch(self, request: Request) -> Response:
        """The table and its changes, line by line, for as long as the client stays; with
        ``?models=1`` also where the launchers' models stand."""
        models = self._loads.standings if request.query_params.get("models") == "1" else None
        return Stream(self._registry.watch(models), NDJSON)

    async def models(self, _: Request) -> Response:
        """``{models}``: where each model of the launchers stands."""
        return http.reply(ModelTable(self._loads.standings()))

    async def load_model(self, request: Request) -> Response:
        """Has a model loaded; where it stands then."""
        return http.reply(await self._loads.load(await http.body(request, LoadRequest)))

    async def unload_model(self, request: Request) -> Response:
        """Has a model leave until it is needed; ``{code, msg}`` when it is done or has failed."""
        message = await http.body(request, UnloadRequest)
        return http.reply(await self._by_hand.unload(message.model_name))

    async def scale_model(self, request: Request) -> Response:
        """Has a model served by so many replicas; ``{code, msg}``."""
        message = await http.body(request, ScaleRequest)
        return http.reply(await self._by_hand.scale(message.model_name, message.replicas))

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

    async def launcher_report(self, request: Request) -> Response:
        """What a launcher has loaded; ``{exist}`` tells whether it is connected."""
        report = await http.body(request, LauncherReport)
        return http.reply(Exist(self._loads.report(report)))

    async def launcher_reply(self, request: Request) -> Response:
        """A launcher's answer to a command; ``{exist}`` tells whether somebody waited for it."""
        return http.reply(Exist(self._launchers.reply(await http.body(request, LauncherReply))))

    async def health(self, _: Request) -> Response:
        """That the controller lives, and how many workers and models it knows."""
        table = self._registry.table
        return http.reply(Health("ok", len(table), len(table.models())))
