"""A process that adds usage records, as a gateway does, until it is told to stop.

Arguments: the database's URL, and how many bytes a file may have (0: any). Each line it writes is
the number of records added so far, the seconds since it began, and how many have been written.
"""

import asyncio
import resource
import signal
import sys
import time

from dev_opsgpt.gateway.usage import UsageWriter
from dev_opsgpt.protocol.record import Record
from dev_opsgpt.storage.database import Database


async def run(url: str) -> int:
    database = Database(url)
    database.upgrade()
    writer = UsageWriter(database)
    writer.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    added = 0
    began = time.monotonic()
    while not stopping.is_set():
        for _ in range(20):
            writer.add(Record(f"r{added}", time.time(), "/v1/completions", model="m"))
            added += 1
        print(added, time.monotonic() - began, writer.written, flush=True)
        await asyncio.sleep(0.01)
    # The limit is lifted at the end, as when somebody makes room on the disk.
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    lost = await asyncio.to_thread(writer.close)
    database.close()
    print(added, time.monotonic() - began, writer.written, flush=True)
    return lost + writer.dropped


if __name__ == "__main__":
    if size := int(sys.argv[2]):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    sys.exit(asyncio.run(run(sys.argv[1])) > 0)
