"""One process of the soak test: ``python -m tests.soak.part <role> ...``.

``worker`` runs a scripted engine as a real worker; anything else is a child of the launcher, by its
own entry. SIGUSR1 makes a process write how many asyncio tasks and Python objects it has to the
file of the environment variable ``SOAK_COUNTS``.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from pathlib import Path

import uvloop

from dev_opsgpt.launcher import children
from dev_opsgpt.worker.runtime import WorkerOptions, WorkerRuntime
from tests.support.engines import ScriptedEngine


def write_counts(*_: object) -> None:
    gc.collect()
    # Python runs signal handlers between two steps of the running loop.
    counts = {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}
    path = Path(os.environ["SOAK_COUNTS"])
    path.with_suffix(".new").write_text(json.dumps(counts))
    path.with_suffix(".new").replace(path)


async def work(controller: str, port: int) -> None:
    options = WorkerOptions(
        names=["echo"],
        port=port,
        controller=controller,
        secret=os.environ["OPSGPT_SECRET"],
        limit=64,
        queue_size=256,
    )
    worker = WorkerRuntime(ScriptedEngine(), options)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await worker.start()
    await stop.wait()
    await worker.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, write_counts)
    if sys.argv[1] == "worker":
        uvloop.run(work(sys.argv[2], int(sys.argv[3])))
    else:
        children.main(sys.argv[1:])
