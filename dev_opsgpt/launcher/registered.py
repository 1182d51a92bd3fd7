"""Waiting until what has started is known to those who send requests on."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from dev_opsgpt.launcher.client import CallFailed, Calls
from dev_opsgpt.launcher.unit import Part, State

TIMEOUT = 15.0
POLL = 0.1


async def registered(
    parts: Callable[[], Sequence[Part]], calls: Calls, gateway: str | None, gateways: int
) -> set[str]:
    """The addresses that the controller knows: once these are all workers of ``parts`` that serve,
    and each of the ``gateways`` at ``gateway`` knows them too, or ``TIMEOUT`` is over."""
    known: set[str] = set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TIMEOUT):
            while True:
                with contextlib.suppress(CallFailed):
                    known = {row.address for row in await calls.workers()}
                    serving = [part for part in parts() if _registers(part)]
                    if all(part.address in known for part in serving) and (
                        gateway is None or await _seen(serving, calls, gateway, gateways)
                    ):
                        break
                await asyncio.sleep(POLL)
    return known


def _registers(part: Part) -> bool:
    ready = part.state is State.READY and not part.leaving
    return ready and part.worker is not None and part.worker.registers


async def _seen(serving: Sequence[Part], calls: Calls, gateway: str, gateways: int) -> bool:
    """Whether the gateways know the models."""
    names = {name for part in serving if part.worker for name in part.worker.names}
    # Nobody can tell which of several gateways answers.
    for _ in range(1 if gateways == 1 else 2 * gateways):
        replicas = await calls.replicas(gateway)
        if not all(replicas.get(name) for name in names):
            return False
    return True
