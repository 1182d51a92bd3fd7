"""Registers servers as workers and beats for them, as each worker's own process would:
``OPSGPT_SECRET=... python -m benchmarks.beats CONTROLLER MODEL ADDRESS ...``."""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from dev_opsgpt.protocol.fastchat import Load
from dev_opsgpt.transport.client import Client
from dev_opsgpt.worker.registration import Registration

# Beyond it requests would wait their turn in the gateway.
LIMIT = 100_000


async def _beat(controller: str, model: str, addresses: Sequence[str]) -> None:
    async with AsyncExitStack() as stack:
        secret = os.environ["OPSGPT_SECRET"]
        load = Load(running=0, waiting=0, limit=LIMIT)
        for address in addresses:
            # Each with a connection of its own, as processes of their own have.
            client = await stack.enter_async_context(Client())
            Registration(client, controller, address, [model], lambda: load, secret=secret).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_beat(sys.argv[1], sys.argv[2], sys.argv[3:]))
