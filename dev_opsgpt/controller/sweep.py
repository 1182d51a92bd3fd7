"""The clockwork behind expiry."""

import asyncio

from dev_opsgpt.controller.registry import Registry


async def sweep_forever(registry: Registry, interval: float) -> None:
    """Sweeps the registry every ``interval`` seconds.

    While this process stood still it heard nobody, so it holds that time against no worker: else
    a machine that stalls for some seconds would drop its whole fleet at once.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        late = loop.time() - due
        if late > interval:
            registry.forgive(late)
        registry.sweep()
