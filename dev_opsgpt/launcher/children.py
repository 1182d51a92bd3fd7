"""The entry of every child: ``python -m dev_opsgpt.launcher.children <role> ...``.

A child is handed its settings by its launcher (one that is started by hand reads them itself),
serves its parts until it is told to stop or its launcher is gone, drains, and says by its exit code
what happened. When it is handed other settings, the parts that can take them in place do. The
secret comes in the environment.
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import uvloop

from dev_opsgpt.config import ConfigError, Settings, load_settings
from dev_opsgpt.launcher.gateway_options import GatewayPlace
from dev_opsgpt.launcher.handed import Handed
from dev_opsgpt.launcher.link import (
    LOG_LEVEL,
    Applied,
    Exit,
    Failed,
    LauncherGone,
    Link,
    Progress,
    Ready,
    Stopped,
)
from dev_opsgpt.launcher.listening import inherited
from dev_opsgpt.launcher.roles import Job, Membership, Reloadable, Runtime, Telling
from dev_opsgpt.storage.errors import StorageError
from dev_opsgpt.transport.logs import install
from dev_opsgpt.transport.server import PortInUse
from dev_opsgpt.transport.telemetry import TelemetryMissing
from dev_opsgpt.worker.engine import EngineError

log = logging.getLogger(__name__)

Inbox = asyncio.Queue[Handed]
# What a start that is called off gets to clean up.
CANCEL_GRACE = 2.0


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs one child to its end. The process ends here, whatever threads an engine has left."""
    arguments = _arguments(argv)
    level = os.environ.get(LOG_LEVEL, "INFO")
    install(level)
    link = Link.from_environment(os.environ)
    sockets = inherited(os.environ)
    try:
        handed = link.receive()
        settings = handed.settings if handed is not None else load_settings()
        install(level, settings.gateway.log_format)
        jobs = _jobs(settings, arguments, sockets)
    except LauncherGone:
        code = int(Exit.STOPPED)
    except (ConfigError, ValueError) as error:
        log.error("%s", error)
        link.tell(Failed(str(error), Exit.CONFIG))
        code = int(Exit.CONFIG)
    else:
        code = _run(jobs, link)
    _leave(code)


def _run(jobs: Sequence[Job], link: Link) -> int:
    # The runner is not closed: that would wait for threads that load a model.
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        return runner.run(serve(jobs, link))
    except Exception:
        log.exception("the process cannot go on")
        return 1


async def serve(jobs: Sequence[Job], link: Link) -> int:
    """Serves all parts until SIGTERM, SIGINT or the launcher's end, or until all have ended by
    themselves. Gives the exit code: one part's trouble is the child's only if it has no other."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    inboxes = [Inbox() for _ in jobs]

    def changed(handed: Handed) -> None:
        for inbox in inboxes:
            loop.call_soon_threadsafe(inbox.put_nowait, handed)

    link.watch(lambda: loop.call_soon_threadsafe(stop.set), changed)
    parts = zip(jobs, inboxes, strict=True)
    codes = await asyncio.gather(*(_serve_one(job, link, stop, inbox) for job, inbox in parts))
    return int(min(codes, default=Exit.STOPPED))


async def _serve_one(job: Job, link: Link, stop: asyncio.Event, inbox: Inbox) -> Exit:
    try:
        runtime = job.make()
        if isinstance(runtime, Telling):
            runtime.tell = lambda doing, done: link.tell(Progress(job.port, doing, done))
        if not await _started(runtime, stop):
            return Exit.STOPPED
    except PortInUse as error:
        return _failed(link, job, str(error), Exit.PORT_IN_USE)
    except (EngineError, ConfigError, TelemetryMissing, StorageError) as error:
        return _failed(link, job, str(error), Exit.ENGINE)
    except Exception as error:
        # A provider is anybody's code; whatever it raises is its own failure, not its neighbours'.
        log.exception("could not start")
        return _failed(link, job, f"{type(error).__name__}: {error}", Exit.ENGINE)
    _settle()
    link.tell(Ready(job.port, job.address(runtime)))
    reloading = asyncio.create_task(_reload(job, runtime, link, inbox))
    await _first(stop, runtime.stopping)
    reloading.cancel()
    released = not stop.is_set()
    await runtime.stop()
    if released:
        link.tell(Stopped(job.port))
    return Exit.STOPPED


async def _reload(job: Job, runtime: Runtime, link: Link, inbox: Inbox) -> None:
    """Has one part take what the launcher hands down, and tells how it went; never returns."""
    while True:
        handed = await inbox.get()
        message = ""
        try:
            if job.options is None or not isinstance(runtime, Reloadable):
                message = "it takes nothing while it runs"
            else:
                await runtime.reload(job.options(handed.settings, _arguments(handed.argv)))
        except Exception as error:
            # Whatever it was, a part that goes on as before is better than one that is gone.
            log.exception("the new configuration was not taken")
            message = " ".join(f"{type(error).__name__}: {error}".split())
        link.tell(Applied(job.port, handed.number, message))


def _settle() -> None:
    """Takes what was loaded out of the garbage collector's sight, and has it look less often: a
    tenth of a request's time went into walking objects that live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _failed(link: Link, job: Job, message: str, code: Exit) -> Exit:
    line = " ".join(message.split())
    log.error("%s", line)
    link.tell(Failed(line, code, job.port))
    return code


async def _started(runtime: Runtime, stop: asyncio.Event) -> bool:
    """Starts it; false when the stop came first and the start was called off."""
    starting = asyncio.ensure_future(runtime.start())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting}, timeout=CANCEL_GRACE)
        return False
    starting.result()
    return True


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _jobs(
    settings: Settings, arguments: argparse.Namespace, sockets: Sequence[socket.socket]
) -> list[Job]:
    from dev_opsgpt.launcher import roles

    if arguments.role == "controller":
        return [roles.controller_job(settings, arguments.port)]
    if arguments.role == "gateway":
        return [roles.gateway_job(settings, _place(arguments), _place, sockets)]
    member = Membership(arguments.controller, arguments.launcher)
    return [roles.worker_job(settings, name, int(port), member) for name, port in arguments.model]


def _place(arguments: argparse.Namespace) -> GatewayPlace:
    return GatewayPlace(
        port=arguments.port,
        controller=arguments.controller,
        declared=tuple(arguments.declared),
        index=arguments.index or 0,
        count=arguments.count,
        run_dir=arguments.runtime_dir,
        shares_port=arguments.index is not None,
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev_opsgpt.launcher.children")
    roles = parser.add_subparsers(dest="role", required=True)
    controller = roles.add_parser("controller")
    controller.add_argument("--port", type=int, required=True)
    gateway = roles.add_parser("gateway")
    gateway.add_argument("--port", type=int, required=True)
    gateway.add_argument("--controller", required=True)
    gateway.add_argument("--index", type=int)
    gateway.add_argument("--count", type=int, default=1)
    gateway.add_argument("--runtime-dir", type=Path)
    gateway.add_argument("--declared", action="append", default=[], metavar="MODEL")
    for role in ("engine", "providers"):
        worker = roles.add_parser(role)
        worker.add_argument("--controller", required=True)
        worker.add_argument("--launcher")
        worker.add_argument(
            "--model", nargs=2, action="append", required=True, metavar=("NAME", "PORT")
        )
    return parser.parse_args(argv)


def _leave(code: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
