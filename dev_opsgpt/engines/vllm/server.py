"""One life of vLLM's server: started under a guardian, listened to, asked for its health, ended."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from dev_opsgpt.engines.vllm.failure import reason_of
from dev_opsgpt.protocol.errors import ApiError
from dev_opsgpt.transport.client import Client, Origin
from dev_opsgpt.transport.masking import MASK
from dev_opsgpt.worker.engine import EngineError

log = logging.getLogger("vllm")

GUARDIAN = Path(__file__).with_name("guardian.py")
POLL = 0.25
HEALTH_TIMEOUT = 10.0
# The guardian's own grace, and a bit.
END_TIMEOUT = 5.0
# Seconds for what a dead server has left in its pipe.
REST = 2.0
KEPT_LINES = 400
# A shorter value, such as "8", is none, and stands in many a line.
SHORTEST_SECRET = 8
_LINE_LIMIT = 1 << 20
_LEVEL = re.compile(r"^(?:\(\S+ pid=\d+\) )?(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")


class VllmServer:
    """A running server. Made by ``start``.

    ``lines`` are the last that it wrote; all go to this process's log, which masks what looks like
    a secret. What is known to be one is masked here. ``heard`` is given each, and what a progress
    bar shows before its line has come to its end.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        hold: int,
        output: int,
        url: str,
        key: str,
        secrets: Sequence[str] = (),
        heard: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.url = url
        self._heard = heard
        self._hold = hold
        self.origin = Origin(url)
        self.headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._secrets = [one for one in (key, *secrets) if len(one) >= SHORTEST_SECRET]
        self._process = process
        self._level = logging.INFO
        self._listening = asyncio.create_task(self._listen(output))

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        environ: Mapping[str, str],
        url: str,
        key: str,
        secrets: Sequence[str] = (),
        heard: Callable[[str], None] = lambda text: None,
    ) -> Self:
        """Starts it; nothing is known yet of how that goes. ``secrets`` are values that its log
        must not show, besides its ``key``. Raises ``OSError``."""
        # Not asyncio's own pipes: with those, the end of a process is only noticed when all who
        # hold them have ended, its own children included.
        its_input, hold = os.pipe()
        output, its_output = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(GUARDIAN), *argv),
                stdin=its_input,
                stdout=its_output,
                stderr=its_output,
                env=dict(environ),
                start_new_session=True,
            )
        except BaseException:
            os.close(hold)
            os.close(output)
            raise
        finally:
            os.close(its_input)
            os.close(its_output)
        return cls(process, hold, output, url, key, secrets, heard)

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return self._process.returncode is None

    async def ready(self, client: Client) -> None:
        """Returns when it is healthy. Raises ``EngineError`` with the reason when it ends."""
        while not await self.healthy(client):
            if not self.alive:
                raise EngineError(await self.ended())
            await asyncio.sleep(POLL)

    async def healthy(self, client: Client) -> bool:
        """Whether it says that it is well."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT):
                head = self.origin.head("GET", "/health", self.headers)
                response = await client.send(self.origin, head)
                await response.read(1 << 16)
        except (ApiError, TimeoutError):
            return False
        return response.status == 200

    async def ended(self) -> str:
        """Waits for its end, and gives the reason in one line."""
        code = await self._process.wait()
        self._kill()
        await asyncio.wait([self._listening], timeout=REST)
        return reason_of(list(self.lines), code)

    async def stop(self) -> None:
        """Ends it and everything that it started; may be called again."""
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            log.warning("vLLM's guardian does not end; it is killed with all it holds")
        finally:
            self._kill()
        await self._process.wait()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    def _kill(self) -> None:
        """Ends what is left of the group: nothing is, where the guardian ended by itself."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _listen(self, output: int) -> None:
        """Takes what it writes to the log, line by line."""
        reader = asyncio.StreamReader()
        pipe = os.fdopen(output, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        rest = b""
        try:
            while data := await reader.read(_LINE_LIMIT):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._wrote(_last(line))
                if b"\r" in rest:
                    self._heard(_last(rest))
                if len(rest) > _LINE_LIMIT:  # one without end is left out
                    rest = b""
            self._wrote(_last(rest))
        finally:
            transport.close()

    def _wrote(self, text: str) -> None:
        if text := self._masked(text):
            self.lines.append(text)
            self._level = _level(text) or self._level
            log.log(self._level, "%s", text)
            self._heard(text)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def _last(line: bytes) -> str:
    """What a line shows in the end: a progress bar writes over what it has shown before."""
    return line.rstrip().rpartition(b"\r")[2].decode(errors="replace").rstrip()


def _level(text: str) -> int | None:
    """How grave a line is, by vLLM's own word; what follows a line belongs to it."""
    found = _LEVEL.match(text)
    return logging.getLevelNamesMapping()[found[1]] if found else None


def free_port(host: str) -> int:
    """A port that nobody has now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
