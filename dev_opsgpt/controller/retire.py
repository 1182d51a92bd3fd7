"""Taking workers out of service: drain them, wait until they are empty, stop them."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Literal

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
    """A worker is still in service; the message says why."""


class Retirer:
    """Takes workers out of service, those that are named together all or none. ``drain_timeout``,
    in seconds, is the options' until it is set anew."""

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
        workers: Sequence[Worker],
        model: str,
        *,
        order: Literal["stop", "unload"] = "stop",
        only_idle: bool = False,
    ) -> None:
        """Drains workers, waits for their requests in flight, and stops them once none has any.

        Where one does not become empty, or this is cancelled, all of them serve again. So does one
        whose process will not end; the others are gone then. Raises ``NotRetired``, with
        ``only_idle`` at once where there are requests in flight. ``unload`` stops them until they
        are needed again.
        """
        for worker in workers:
            self._registry.drain(worker.address)
        try:
            await _all_or_none(self._empty(worker, only_idle) for worker in workers)
        except BaseException:
            for worker in workers:
                self._serve_again(worker)
            raise
        ended = (self._end(worker, model, order) for worker in workers)
        for failure in await asyncio.gather(*ended, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure

    def _serve_again(self, worker: Worker) -> None:
        """Unless it was draining before."""
        if not worker.draining:
            self._registry.drain(worker.address, False)

    async def _end(self, worker: Worker, model: str, order: Literal["stop", "unload"]) -> None:
        try:
            await self._stop(worker, model, order)
        except BaseException as error:
            self._serve_again(worker)
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
        connected = worker.launcher is not None and self._launchers.connected(worker.launcher)
        # One that has left by itself may have its process still: vLLM's has, between two lives.
        if self._left(worker) and not (connected and order == "unload"):
            return
        seconds = self.drain_timeout + self._options.stop_timeout
        if worker.launcher is not None and connected:
            await self._launchers.command(worker.launcher, order, model, worker.address, seconds)
        else:
            await self._peers.release(worker, seconds)

    def _left(self, worker: Worker) -> bool:
        return self._registry.table.get(worker.address) is None


async def _all_or_none(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Does all of it at the same time. What goes wrong first is raised, and ends the rest."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
