"""``/release_worker``: stop a model, start one, or replace one by another, at run time."""

import asyncio
import logging
from collections.abc import Sequence

from dev_opsgpt.controller.launchers import LauncherFailed, Launchers
from dev_opsgpt.controller.locks import NamedLocks
from dev_opsgpt.controller.messages import ReleaseReply, ReleaseRequest
from dev_opsgpt.controller.registry import Registry
from dev_opsgpt.controller.retire import NotRetired, Retirer
from dev_opsgpt.routing.residency import Residency
from dev_opsgpt.routing.table import Worker

logger = logging.getLogger(__name__)


class NotReleased(Exception):
    """The release was refused or failed; the message says why and what is running now."""


class Releases:
    """Carries out releases, those that concern the same model one after the other.

    A replacement starts the new model first, so a start that fails leaves the old one as it was.
    What is out of service is loaded by no request, whether or not it was loaded when it was
    released. ``locks`` are shared with others that change models, and go by the name that
    ``residency`` has for a model.
    """

    def __init__(
        self,
        registry: Registry,
        launchers: Launchers,
        retirer: Retirer,
        start_timeout: float,
        locks: NamedLocks,
        residency: Residency,
    ) -> None:
        self._registry = registry
        self._launchers = launchers
        self._retirer = retirer
        self._start_timeout = start_timeout
        self._locks = locks
        self._residency = residency

    async def release(self, request: ReleaseRequest) -> ReleaseReply:
        """Does what is asked and tells how it went; it never raises for a failure."""
        names = {request.model_name, request.new_model_name or request.model_name}
        held = self._residency.held
        async with self._locks.hold(map(self._called, names)):
            try:
                if not request.keep_origin:
                    held.add(request.model_name)
                done = await self._release(request)
            except (NotReleased, NotRetired, LauncherFailed) as error:
                logger.warning("release of %r failed: %s", request.model_name, error)
                return ReleaseReply(500, str(error))
            finally:
                # By now its launcher has said that it is released.
                held.discard(request.model_name)
        logger.info("release: %s", done)
        return ReleaseReply(200, done)

    def _called(self, name: str) -> str:
        return self._residency.residents.resolve(name) or name

    async def _release(self, request: ReleaseRequest) -> str:
        model, new = request.model_name, request.new_model_name
        old = self._registry.table.replicas(model, draining=True)
        known = old or self._residency.residents.resolve(model) is not None
        if not known and not (new and request.keep_origin and not model):
            raise NotReleased(f"no worker serves the model {model!r}")
        if request.keep_origin:
            if not new:
                raise NotReleased("keep_origin without new_model_name leaves nothing to do")
            return await self._start(new, model, old)
        self._check_stoppable(model, old)
        done = await self._start(new, model, old) + "; " if new else ""
        if new is not None and self._called(new) == self._called(model):
            await self._stop(model, old, done)
        else:
            with self._residency.leaving(self._called(model)):
                await self._stop(model, old, done)
                await self._keep_out(self._called(model), done)
        return f"{done}{model!r} {'stopped' if old else 'is out of service'}"

    async def _start(self, new: str, model: str, old: Sequence[Worker]) -> str:
        table = self._registry.table
        if new != model and table.replicas(new):
            raise NotReleased(f"the model {new!r} is running already; nothing was changed")
        launcher = self._launchers.able(new, [worker.launcher for worker in old])
        if launcher is None:
            raise NotReleased(f"no launcher can start the model {new!r}; nothing was changed")
        before = {worker.address for worker in table.replicas(new, draining=True)}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._start_timeout
        await self._launchers.command(launcher, "start", new, None, self._start_timeout)

        def came() -> bool:
            return any(worker.address not in before for worker in table.replicas(new))

        if not await self._registry.until(came, deadline - loop.time()):
            raise NotReleased(
                f"the model {new!r} was started but did not register within "
                f"{self._start_timeout:g} s; nothing was stopped"
            )
        return f"{new!r} started"

    def _check_stoppable(self, model: str, workers: Sequence[Worker]) -> None:
        """Refuses what would take another model along, or cannot be stopped from here."""
        leaving = {worker.address for worker in workers}
        for worker in workers:
            if worker.kind == "openai":
                raise NotReleased(
                    f"{model!r} is attached by URL ({worker.address}); take it out of the "
                    "configuration instead"
                )
            for other in worker.models:
                stay = {row.address for row in self._registry.table.replicas(other)} - leaving
                if other != model and not stay:
                    raise NotReleased(
                        f"{worker.address} also serves {other!r}, which nobody else does; "
                        "nothing was changed"
                    )

    async def _stop(self, model: str, workers: Sequence[Worker], done: str) -> None:
        results = await asyncio.gather(
            *(self._retirer.retire([worker], model) for worker in workers), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, NotRetired):
                raise failure
        if failures:
            raise NotReleased(done + "; ".join(str(failure) for failure in failures))

    async def _keep_out(self, model: str, done: str) -> None:
        """Has the launchers that could load the model, or are about to, do so no more: those that
        have just stopped it know that already."""
        hosts = self._residency.residents.hosts
        places = [
            launcher
            for launcher, host in hosts.items()
            if (model in host.cards and model not in host.released)
            or (model in host.residents and host.residents[model].parts)
        ]
        for launcher in places:
            try:
                await self._launchers.command(launcher, "stop", model, None, self._start_timeout)
            except LauncherFailed as error:
                raise NotReleased(f"{done}{model!r} may be loaded again: {error}") from None
