"""Registers an upstream as a worker and beats for it, as a worker's own process would:
``OPSGPT_SECRET=... python -m benchmarks.beats CONTROLLER ADDRESS MODEL``."""

import asyncio
import os
import sys

from dev_opsgpt.protocol.fastchat import Load
from dev_opsgpt.transport.client import Client
from dev_opsgpt.worker.registration import Registration

LIMIT = 1000


async def _beat(controller: str, address: str, model: str) -> None:
    async with Client() as client:
        secret = os.environ["OPSGPT_SECRET"]
        load = Load(running=0, waiting=0, limit=LIMIT)
        Registration(client, controller, address, [model], lambda: load, secret=secret).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_beat(*sys.argv[1:4]))
