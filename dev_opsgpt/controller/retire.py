"""Taking one worker out of service: drain it, wait until it is empty, stop it."""

import asyncio
import logging
from typing import Literal

from dev_opsgpt.controller.launchers import LauncherFailed, Launchers
from dev_opsgpt.controller.options import ControllerOptions
from dev_opsgpt.controller.peers import PeerFailed, Peers, PeerUnreachable
from dev_opsgpt.controller.registry import Registry
from dev_opsgpt.routing.table import Worker

logger = logging.getLogger(__name__)

POLL = 0.1
# As many looks in a row must agree before a worker is taken to be empty, or gone.
LOOKS = 3
# Seconds that a stopped worker has to leave the table by itself.
LEAVE = 5.0


class NotRetired(Exception):
    """The worker is still in service; the message says why."""


class Retirer:
    """Takes workers out of service, each one either wholly or not at all. ``drain_timeout``, in
    seconds, is the options' until it is set anew."""

    def __init__(
        self, registry: Registry, launchers: Launchers, peers: Peers, options: ControllerOptions
    ) -> None:
        self._registry = registry
        self._launchers = launchers
        self._peers = peers
        self._options = options
        self.drain_timeout = options.drain_timeout
        self.table = registry.table

    async def retire(
        self,
        worker: Worker,
        model: str,
        *,
        order: Literal["stop", "unload"] = "stop",
        only_idle: bool = False,
    ) -> None:
        """Drains a worker, waits for its requests in flight, and stops it.

        If that fails, or is cancelled, the worker serves again. Raises ``NotRetired``, with
        ``only_idle`` at once where there are requests in flight. ``unload`` stops it until it is
        needed again.
        """
        self._registry.drain(worker.address)
        try:
            await self._empty(worker, only_idle)
            await self._stop(worker, model, order)
        except BaseException as error:
            if not worker.draining:
                self._registry.drain(worker.address, False)
            if isinstance(error, LauncherFailed | PeerFailed):
                raise NotRetired(f"{worker.address} was not stopped: {error}") from None
            raise
        if not await self._registry.until(lambda: self._left(worker), LEAVE):
            self._registry.remove(worker.address, "left")

    async def _empty(self, worker: Worker, only_idle: bool) -> None:
        seconds = self.drain_timeout
        queue = 0
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(self._options.settle)
                idle = gone = 0
                while idle < LOOKS and gone < LOOKS and not self._left(worker):
                    queue, there = await self._look(worker, queue)
                    if queue and only_idle:
                        raise NotRetired(f"{worker.address} has requests in work")
                    gone = 0 if there else gone + 1
                    idle = 0 if queue or not there else idle + 1
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise NotRetired(
                f"{worker.address} still has {queue} requests in work after {seconds:g} s of "
                "draining; it was not stopped and serves again"
            ) from None

    async def _look(self, worker: Worker, before: int) -> tuple[int, bool]:
        """The worker's queue and whether it is there; a silent worker's queue counts as busy."""
        try:
            status = await self._peers.status(worker.address, ours=worker.kind == "opsgpt")
        except PeerUnreachable:
            return before, False
        except PeerFailed as error:
            logger.warning("the load of %s is unknown: %s", worker.address, error)
            return max(1, before), True
        return status.queue_length, True

    async def _stop(self, worker: Worker, model: str, order: Literal["stop", "unload"]) -> None:
        if self._left(worker):
            return
        seconds = self.drain_timeout + self._options.stop_timeout
        if worker.launcher is not None and self._launchers.connected(worker.launcher):
            await self._launchers.command(worker.launcher, order, model, worker.address, seconds)
        else:
            await self._peers.release(worker, seconds)

    def _left(self, worker: Worker) -> bool:
        return self._registry.table.get(worker.address) is None
