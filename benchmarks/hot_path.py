"""``python -m benchmarks.hot_path``: what a plain request costs in the gateway's own code.

The whole gateway runs, but its sockets are objects of this process: no kernel, no client, no
server. What is measured is so steady that a microsecond shows, which in a real run it does not. To
compare two states of the code, run it in both checkouts in turns.
"""

import argparse
import asyncio
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

import msgspec
import uvicorn
import uvloop
from uvicorn.server import ServerState

from benchmarks.report import markdown
from dev_opsgpt.gateway.assembly import Gateway
from dev_opsgpt.gateway.options import GatewayOptions
from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.routing.table import Worker
from dev_opsgpt.routing.updates import Ping, Snapshot
from dev_opsgpt.storage.database import Database
from dev_opsgpt.storage.keys import KeyStore, Terms
from dev_opsgpt.transport.connection import Connection

KEY = "sk-benchmark"
LIMITS = Terms(rpm=1_000_000_000, tpm=2_000_000_000, concurrent=100_000)
LAYERS = {
    "configured": "a key of the configuration",
    "limits": "a virtual key: requests, tokens and requests at once counted, rate headers",
    "rows": "the same, and a row of usage in SQLite",
}
CONNECTIONS = 32
WARM_UP = 200
# Requests of a connection in one round: about half a second's, so that rows are written in each.
ROUND = 400
PING = 2.0
MODEL, WORKER = "model", "http://127.0.0.1:9"
CHAT = {"model": MODEL, "max_tokens": 80, "messages": [{"role": "user", "content": "hello " * 20}]}
_SAID = {"role": "assistant", "content": "x" * 300}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": MODEL,
    "choices": [{"index": 0, "message": _SAID, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 80, "total_tokens": 100},
}


class Wire(asyncio.Transport):
    """A socket that leads nowhere. ``sent`` is called with what is written to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 9), "sockname": ("127.0.0.1", 8888)})
        self._loop, self._protocol = loop, protocol
        self.sent: Callable[[bytes], None] = lambda data: None

    def arrive(self, data: bytes) -> None:
        """Has the bytes read in the loop's next round, as those of a socket are."""
        self._loop.call_soon(self._protocol.data_received, data)

    def write(self, data: Any) -> None:
        """Takes what the gateway writes."""
        self.sent(data)

    def is_closing(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing is held."""

    abort = close


class Loop(uvloop.Loop):
    """An event loop whose connections are ``Wire``s: to a controller that knows one worker, which
    answers at once and always the same."""

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *_: Any, **__: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Connects, whoever is asked for."""
        protocol = protocol_factory()
        wire = Wire(self, protocol)
        row = Worker(address=WORKER, models=(MODEL,), kind="opsgpt", limit=100_000)
        table, ping = (msgspec.json.encode(said) + b"\n" for said in (Snapshot([row]), Ping()))
        answer = _message(b"HTTP/1.1 200 OK\r\nServer: wire", msgspec.json.encode(ANSWER))

        def watched(told: bytes) -> None:
            wire.arrive(told)
            self.call_later(PING, watched, ping)

        def sent(data: bytes) -> None:
            if data.startswith(b"GET /watch"):
                watched(b"HTTP/1.1 200 OK\r\n\r\n%b" % table)
            else:
                wire.arrive(answer)

        wire.sent = sent
        protocol.connection_made(wire)
        return wire, protocol


class Caller:
    """A client's connection that asks again as soon as it is answered."""

    def __init__(self, gateway: Gateway, config: uvicorn.Config, state: ServerState) -> None:
        loop = asyncio.get_running_loop()
        self._connection = Connection(gateway.hot, config, state, {}, loop)
        self._wire = Wire(loop, self._connection)
        self._wire.sent = self._answered
        self._connection.connection_made(self._wire)
        self._left = 0
        self._request = b""
        self._over: asyncio.Future[None] = loop.create_future()

    async def ask(self, request: bytes, times: int) -> None:
        """Returns when it has been answered so often. Raises ``RuntimeError`` where it is not."""
        self._left, self._request = times, request
        self._over = asyncio.get_running_loop().create_future()
        self._wire.arrive(request)
        await self._over

    def _answered(self, data: bytes) -> None:
        self._left -= 1
        if not data.startswith(b"HTTP/1.1 200 "):
            self._over.set_exception(RuntimeError(data.decode("latin-1")))
        elif self._left:
            self._wire.arrive(self._request)
        else:
            self._over.set_result(None)


def _message(head: bytes, body: bytes) -> bytes:
    form = b"%b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    return form % (head, len(body), body)


async def measure(layer: str, rounds: int, folder: Path) -> list[float]:
    """Microseconds of CPU time a request, of all threads, for each round."""
    url = f"sqlite:///{folder / 'gateway.db'}"
    token = KEY
    if layer != "configured":
        database = Database(url)
        database.upgrade()
        _, token = KeyStore(database).create(LIMITS, time.time())
        database.close()
    options = GatewayOptions(
        secret="benchmark",
        api_keys=(KEY,),
        route=Route(dispatch_method="round_robin"),
        database_url=url,
        usage=layer == "rows",
        runtime_dir=folder,
    )
    gateway = Gateway(options)
    await gateway.start()
    config = uvicorn.Config(cast(Any, gateway.app), lifespan="off", ws="none", log_config=None)
    callers = [Caller(gateway, config, ServerState()) for _ in range(CONNECTIONS)]
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b"
    request = _message(head % token.encode(), msgspec.json.encode(CHAT))
    await asyncio.sleep(0.1)
    await asyncio.gather(*(caller.ask(request, WARM_UP) for caller in callers))
    # As in the gateway's process (launcher/children.py).
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    found = []
    for _ in range(rounds):
        began = time.process_time()
        await asyncio.gather(*(caller.ask(request, ROUND) for caller in callers))
        found.append((time.process_time() - began) / (ROUND * CONNECTIONS) * 1e6)
    await gateway.stop()
    return found


def _one(layer: str, rounds: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(measure(layer, rounds, Path(folder)))


def main(arguments: Sequence[str] | None = None) -> None:
    """The layers take turns, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.hot_path")
    parser.add_argument("--turns", type=int, default=4, help="of each layer (default: 4)")
    parser.add_argument("--rounds", type=int, default=12, help="of a turn (default: 12)")
    parser.add_argument("--layer", choices=LAYERS, help="only this one, in this process; as JSON")
    chosen = parser.parse_args(arguments)
    if chosen.layer:
        sys.stdout.buffer.write(msgspec.json.encode(_one(chosen.layer, chosen.rounds)))
        return
    found: dict[str, list[float]] = {layer: [] for layer in LAYERS}
    for _ in range(chosen.turns):
        for layer, figures in found.items():
            argv = [sys.executable, "-m", "benchmarks.hot_path", "--layer", layer]
            argv += ["--rounds", str(chosen.rounds)]
            told = subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout
            figures += msgspec.json.decode(told, type=list[float])
    rows = [
        [LAYERS[layer], f"{min(figures):.1f}", f"{median(figures):.1f}", f"{mean(figures):.1f}"]
        for layer, figures in found.items()
    ]
    print(markdown(["CPU µs/request", "least", "median", "mean"], rows))


if __name__ == "__main__":
    main()
