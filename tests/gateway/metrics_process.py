"""One of a gateway's processes, as far as its figures go: counts what it is asked to, on a port
that it shares. ``python metrics_process.py <port> <folder> <index>``"""

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from dev_opsgpt.gateway.exporter import Exporter
from dev_opsgpt.gateway.metrics import Metrics
from dev_opsgpt.gateway.metrics_page import PATH, create_metrics_page
from dev_opsgpt.gateway.snapshot_files import SnapshotFiles
from dev_opsgpt.protocol.record import Record
from dev_opsgpt.transport.asgi import send_json
from dev_opsgpt.transport.router import Router
from dev_opsgpt.transport.server import Server, bind


async def main(port: int, folder: Path, index: int) -> None:
    metrics = Metrics()
    exporter = Exporter(metrics, SnapshotFiles(folder, index), index=index)
    exporter.take_over()

    @asynccontextmanager
    async def live():
        task = asyncio.create_task(exporter.run())
        yield
        task.cancel()
        await exporter.close()

    async def count(scope, receive, send):
        record = Record(request_id="r", at=1.0, path="/count", served="tiny", status=200)
        metrics.finished(record)
        await send_json(send, 200, {"index": index})

    page = create_metrics_page(exporter, lambda scope: None)
    routes = {PATH: {"GET": page}, "/count": {"GET": count}}
    server = Server(Router(routes, lifespan=live), bind("127.0.0.1", port, reuse_port=True))
    await server.start()
    print(server.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
