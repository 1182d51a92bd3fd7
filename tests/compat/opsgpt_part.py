"""One part of this project as a process: `opsgpt_part.py controller|worker|gateway --port N ...`.

The counterpart of fschat's programs, for mixes of both. OPSGPT_SECRET is the cluster's secret;
FastChat's clients are let in without it, FastChat's workers need it.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

LISTENING = "this part is listening"
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dev_opsgpt.controller.app import create_app  # noqa: E402 - the path comes first
from dev_opsgpt.controller.options import ControllerOptions  # noqa: E402
from dev_opsgpt.engines.llama_cpp import LlamaCppEngine  # noqa: E402
from dev_opsgpt.engines.llama_cpp_loading import LlamaOptions  # noqa: E402
from dev_opsgpt.gateway.runtime import GatewayOptions, GatewayRuntime  # noqa: E402
from dev_opsgpt.transport.server import Server, bind  # noqa: E402
from dev_opsgpt.worker.runtime import WorkerOptions, WorkerRuntime  # noqa: E402


class Controller:
    """A controller with the life of the other two."""

    def __init__(self, port: int, secret: str | None, allow: list[str]) -> None:
        options = ControllerOptions(
            secret=secret,
            dispatch_method="round_robin",
            fastchat_clients=True,
            fastchat_workers=tuple(allow),
        )
        self._app = create_app(options)
        self._server = Server(self._app, bind("127.0.0.1", port), drain_timeout=2)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        self._app.state.controller.close()
        await self._server.stop()


def part(arguments: argparse.Namespace, secret: str | None) -> Any:
    """The part that was asked for."""
    port, controller = arguments.port, arguments.controller
    if arguments.part == "controller":
        return Controller(port, secret, arguments.allow)
    if arguments.part == "gateway":
        return GatewayRuntime(GatewayOptions(port=port, controller=controller, secret=secret))
    engine = LlamaCppEngine(LlamaOptions(path=ROOT / "llm_models" / "tiny-chat.gguf"))
    options = WorkerOptions(
        names=[arguments.model],
        port=port,
        controller=controller,
        secret=secret,
        fastchat_clients=True,
        drain_timeout=2,
    )
    return WorkerRuntime(engine, options)


async def main(arguments: argparse.Namespace) -> None:
    """Runs until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    found = part(arguments, os.environ.get("OPSGPT_SECRET"))
    await found.start()
    logging.info(LISTENING)
    await stop.wait()
    await found.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("controller", "worker", "gateway"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--controller", default="")
    parser.add_argument("--model", default="tiny-chat")
    parser.add_argument("--allow", action="append", default=[])
    asyncio.run(main(parser.parse_args()))
