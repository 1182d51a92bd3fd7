"""llama.cpp's server inside of this process, and our connection to it.

The server listens on a loopback port of its own choice, behind a random key. We talk to it over
HTTP although it has Python calls too: closing a connection ends a request, even while its prompt
is read, where a Python callback can do so only at the next token. llama.cpp notices a closed
connection when it writes, so it is asked to report its progress after each batch of the prompt.
"""

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import xllamacpp

from dev_opsgpt.engines.llama_cpp_pace import Pace, joined
from dev_opsgpt.engines.llama_cpp_stream import CompletionReader
from dev_opsgpt.protocol.errors import (
    ApiError,
    ContextLengthExceeded,
    InternalError,
    ModelNotFound,
    OutOfMemory,
    RateLimited,
    Unavailable,
    UpstreamFailed,
)
from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.response import Response
from dev_opsgpt.worker.engine import Delta, EngineError
from dev_opsgpt.worker.openai_errors import answer_error
from dev_opsgpt.worker.openai_stream import StreamReader

log = logging.getLogger(__name__)

COMPLETIONS = "/completion"
# A long prompt is silent work: nothing bounds it but the client's patience.
READ_TIMEOUT = 86_400.0
STOP_TIMEOUT = 20.0
SLOTS_INTERVAL = 0.01
# Seconds between two pieces of one stream of a fast model: what it generates in the meantime comes
# in one piece. As long as a screen needs for a picture.
PIECE = 0.016
_NO_MEMORY = ("out of memory", "failed to allocate", "bad_alloc", "Insufficient memory")


class LlamaServer:
    """One llama.cpp server: ``start`` loads the model, ``stop`` frees it, and it can start again.

    ``params`` are xllamacpp's; address, key and HTTP threads are set here. ``parallel`` is the
    number of requests that will be open at the same time, beside short ones.
    """

    def __init__(self, params: Any, *, parallel: int) -> None:
        self._params = params
        self._params.hostnames = ["127.0.0.1"]
        self._params.port = 0
        self._params.ui = False
        self._params.verbosity = -1
        # One thread serves a connection as long as it is open.
        self._params.n_threads_http = 2 * parallel + 8
        self._server: Any = None
        self._client: Client | None = None
        self._origin: Origin | None = None
        self._headers: dict[str, str] = {}

    async def start(self) -> None:
        """Loads the model. Raises ``EngineError``."""
        key = secrets.token_urlsafe(32)
        self._params.api_keys = [key]
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.run_in_executor(None, xllamacpp.Server, self._params)
        except (RuntimeError, MemoryError) as error:
            raise EngineError(str(error)) from None
        self._origin = Origin(self._server.listening_address)
        self._client = Client(read_timeout=READ_TIMEOUT)
        # Only llama.cpp's loop answers this one. A server that is destroyed before its loop runs
        # is told to end too early, and then never ends.
        await self.get("/slots")

    async def stop(self) -> None:
        """Ends every request and frees the model."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
            await self._idle()
        held = [self._server]
        self._server = self._origin = None
        # Its destructor joins threads, so it runs elsewhere; the list holds the last reference.
        freed = asyncio.get_running_loop().run_in_executor(None, held.clear)
        done, _ = await asyncio.wait({freed}, timeout=STOP_TIMEOUT)
        if not done:
            log.error("llama.cpp did not end within %s s", STOP_TIMEOUT)

    async def _idle(self) -> None:
        """Waits until llama.cpp has let go of the requests that were ended: one that is destroyed
        before it has noticed waits half a minute for each of them."""
        assert self._origin is not None  # noqa: S101 - for the type checker
        head = self._origin.head("GET", "/slots", self._headers)
        quiet = 0
        async with Client(read_timeout=STOP_TIMEOUT) as client:
            with contextlib.suppress(ApiError, TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT):
                    # Twice: a request may be on its way to a slot.
                    while quiet < 2:
                        await asyncio.sleep(SLOTS_INTERVAL)
                        slots = await self._json(await client.send(self._origin, head, b""))
                        quiet = 0 if any(slot["is_processing"] for slot in slots) else quiet + 1

    async def get(self, path: str) -> Any:
        """A GET's JSON. Raises ``ApiError``."""
        return await self._json(await self._send("GET", path, b""))

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A POST's JSON. Raises ``ApiError``."""
        found = await self._json(await self._send("POST", path, msgspec.json.encode(body)))
        return found if isinstance(found, dict) else {"data": found}

    async def stream(
        self, path: str, body: dict[str, Any], *, counted: bool = True
    ) -> AsyncGenerator[Delta, None]:
        """The deltas of a streamed answer, the last with the finish reason and the usage. Where it
        is ``counted`` there is one for each token, with the usage so far. Closing the generator
        ends the request. Raises ``ApiError``."""
        native = path == COMPLETIONS
        asked = {**body, "stream": True, "return_progress": True}
        if not native:
            # OpenAI's form of a stream tells the tokens so far by its timings only.
            asked |= {"timings_per_token": counted, "stream_options": {"include_usage": True}}
        response = await self._send("POST", path, msgspec.json.encode(asked))
        try:
            if response.status != 200:
                raise _mapped(answer_error(response.status, await response.read()))
            reader = CompletionReader() if native else StreamReader()
            pace = Pace(PIECE)
            try:
                while piece := await response.next():
                    if counted:
                        for delta in reader.feed(piece):
                            delta.usage = reader.usage
                            yield delta
                    else:
                        for delta in joined(reader.feed(piece)):
                            yield delta
                    if rest := pace.wait():
                        await response.gather(rest)
                yield reader.end()
            except UpstreamFailed as error:
                raise _mapped(error) from None
        finally:
            response.close()

    async def _send(self, method: str, path: str, body: bytes) -> Response:
        if self._client is None or self._origin is None:
            raise Unavailable("The model is not loaded.")
        head = self._origin.head(method, path, self._headers)
        return await self._client.send(self._origin, head, body)

    async def _json(self, response: Response) -> Any:
        try:
            data = await response.read()
        finally:
            response.close()
        if response.status != 200:
            raise _mapped(answer_error(response.status, data))
        return msgspec.json.decode(data)


def _mapped(error: ApiError) -> ApiError:
    """llama.cpp's errors in our terms: its own failures are ours, for it is a part of us."""
    message = error.message
    if any(sign in message for sign in _NO_MEMORY):
        return OutOfMemory(f"The model ran out of memory: {message}")
    if "exceeds the available context size" in message or "is too large to process" in message:
        return ContextLengthExceeded(_too_long(message))
    if isinstance(error, UpstreamFailed | ModelNotFound | RateLimited):
        return InternalError(message)
    return error


def _too_long(message: str) -> str:
    """llama.cpp names the two numbers of tokens, the prompt's and the most it takes."""
    numbers = re.findall(r"\d+", message)
    if len(numbers) < 2:
        return f"The input is too long for this model: {message}"
    return (
        f"The input has {numbers[0]} tokens; this model's context is {numbers[1]} tokens, "
        "for the input and the answer together."
    )
