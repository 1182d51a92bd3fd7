"""Keeps vLLM alive: starts it, looks after its health and its load, starts it again."""

import asyncio
import logging
import os
import re
from contextlib import suppress
from time import monotonic

from dev_opsgpt.engines.vllm.command import API_KEY, Command, Machine, base_environ, make_command
from dev_opsgpt.engines.vllm.command import missing as missing_model
from dev_opsgpt.engines.vllm.failure import PORT_TAKEN
from dev_opsgpt.engines.vllm.figures import load_of
from dev_opsgpt.engines.vllm.options import VllmOptions
from dev_opsgpt.engines.vllm.phases import ASKING, STARTING, phase_of
from dev_opsgpt.engines.vllm.python import ask_schema, find_python
from dev_opsgpt.engines.vllm.server import VllmServer, free_port
from dev_opsgpt.engines.vllm.upstream import Models, asked, body_of
from dev_opsgpt.protocol.direct import direct_key, new_salt
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.transport.client import Client
from dev_opsgpt.worker.address import advertised
from dev_opsgpt.worker.engine import Direct, EngineError, Load
from dev_opsgpt.worker.progress import Tell, silent

log = logging.getLogger(__name__)

# Seconds between two looks, as between two beats, and how many in a row have to fail before vLLM is
# taken to hang.
LOOK = 2.0
SICK_AFTER = 5
MEASURE_TIMEOUT = 5.0
# Another program may take a free port in the seconds until vLLM binds it.
PORT_ATTEMPTS = 3
_SECRET = re.compile(r"(?i)key|token|secret|passw|credential")


class Keeper:
    """vLLM's lives, one at a time. ``server`` is the present one, None between two; ``changes``
    has false for each end and true for each start but the first. ``tell`` is told how each start
    goes on."""

    def __init__(self, options: VllmOptions, client: Client, tell: Tell = silent) -> None:
        self._options = options
        self._client = client
        self._tell = tell
        self._command: Command | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.server: VllmServer | None = None
        self.direct: Direct | None = None
        self.load = Load(0, 0, options.limit)
        self.context_length = 0
        self.changes: asyncio.Queue[bool] = asyncio.Queue()

    @property
    def tools(self) -> bool:
        """Whether the model calls tools by itself."""
        return self._command is not None and self._command.tools

    async def start(self) -> None:
        """Begins the first life, and keeps vLLM alive from then on. Raises ``EngineError``."""
        if self._keeping is not None:
            raise EngineError("The model is started already.")
        if why := missing_model(self._options.path):
            raise EngineError(f"{self._options.names[0]!r}: {why}")
        self._command = await self._prepare()
        await self._live()
        self._keeping = asyncio.create_task(self._keep())
        self._keeping.add_done_callback(_told)

    async def stop(self) -> None:
        """Ends it, whatever it is doing."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        server, self.server, self.direct = self.server, None, None
        if server is not None:
            await server.stop()

    async def measure(self) -> Load:
        """Asks for the load; as it was where there is no answer."""
        server = self.server
        if server is None:
            self.load = Load(0, 0, self._options.limit)
        else:
            with suppress(ApiError, TimeoutError, ValueError):
                await self._measure(server)
        return self.load

    async def _measure(self, server: VllmServer) -> None:
        async with (
            asyncio.timeout(MEASURE_TIMEOUT),
            asked(self._client, server, "/metrics", method="GET") as response,
        ):
            page = await response.read()
        running, waiting, taken = load_of(page)
        self.load = Load(running, waiting, self._options.limit, taken)

    async def _prepare(self) -> Command:
        self._tell(ASKING, None)
        options = self._options
        python = find_python(options.python)
        environ = base_environ(os.environ, options.environ)
        schema = await ask_schema(python, environ, options.cache)
        return make_command(python, options, schema, os.environ, _machine())

    async def _live(self) -> None:
        """Begins one life. Raises ``EngineError``."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                await self._live_once()
                return
            except EngineError as error:
                if PORT_TAKEN not in str(error) or attempt == PORT_ATTEMPTS:
                    raise

    async def _live_once(self) -> None:
        assert self._command is not None  # noqa: S101 - made by start
        options, command = self._options, self._command
        port = free_port(options.host)
        url = advertised(options.host, port, options.advertise_host, options.controller)
        salt = new_salt()
        key = direct_key(options.secret, salt)
        self._tell(STARTING, None)
        argv, environ = (*command.argv, f"--port={port}"), {**command.environ, API_KEY: key}
        try:
            hidden = [v for name, v in options.environ.items() if _SECRET.search(name)]
            server = await VllmServer.start(argv, environ, url, key, hidden, self._heard)
        except OSError as error:
            raise EngineError(f"vLLM cannot be started: {error.strerror or error}.") from None
        try:
            await server.ready(self._client)
            self.context_length = await self._context(server)
        except ApiError as error:
            await server.stop()
            raise EngineError(f"vLLM does not tell its models: {error.message}") from None
        except BaseException:
            await server.stop()
            raise
        self.server, self.direct = server, Direct(url, salt)

    def _heard(self, line: str) -> None:
        if self.server is None and (phase := phase_of(line)) is not None:
            self._tell(*phase)

    async def _context(self, server: VllmServer) -> int:
        async with asked(self._client, server, "/v1/models", method="GET") as response:
            found: Models = await body_of(response, Models)
        return next((one.max_model_len for one in found.data if one.max_model_len), 0)

    async def _keep(self) -> None:
        """Looks after one life, and begins the next; never returns."""
        while True:
            began = monotonic()
            server = self.server
            assert server is not None  # noqa: S101 - a life has begun
            why = await self._lived(server)
            self.server = self.direct = None
            self.load = Load(0, 0, self._options.limit)
            self.changes.put_nowait(False)
            await server.stop()
            await self._again(why, monotonic() - began)
            self.changes.put_nowait(True)

    async def _again(self, why: str, lived: float) -> None:
        """Starts vLLM until that succeeds, with growing pauses."""
        while True:
            pause = self._options.pause(lived)
            log.error("%s; it is started again in %g s", why.rstrip("."), pause)
            await asyncio.sleep(pause)
            try:
                await self._live()
            except EngineError as error:
                why, lived = str(error), 0.0
            else:
                log.info("vLLM serves %s again", ", ".join(self._options.names))
                return

    async def _lived(self, server: VllmServer) -> str:
        """Waits for a life's end, and gives the reason. A server that says that it is sick, or
        says nothing for long, has come to its end as well."""
        ending = asyncio.create_task(server.ended())
        failed = 0
        try:
            while True:
                done, _ = await asyncio.wait([ending], timeout=LOOK)
                if done:
                    return ending.result()
                failed = 0 if await server.healthy(self._client) else failed + 1
                if failed >= SICK_AFTER:
                    return "vLLM: it answers no more"
                await self.measure()
        finally:
            ending.cancel()


def _told(keeping: asyncio.Task[None]) -> None:
    """Nobody waits for the keeper's end, so that an end by a fault of its own has to be logged."""
    if not keeping.cancelled() and (error := keeping.exception()) is not None:
        log.error("vLLM is watched over no more", exc_info=error)


def _machine() -> Machine:
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(sorted(os.sched_getaffinity(0)), pages)
