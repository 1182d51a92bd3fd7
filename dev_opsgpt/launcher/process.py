"""One life of one child: started in a process group of its own, heard, and gone without a rest."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Self

import msgspec

from dev_opsgpt.launcher.link import LINK, News, decode
from dev_opsgpt.launcher.listening import NOTHING, SOCKETS, Hold
from dev_opsgpt.launcher.logs import LogFile

# Seconds for what a dead child has left in its pipes.
REST = 2.0
CHUNK = 65_536


class Process:
    """A running child. Made by ``spawn``."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        news: asyncio.StreamReader,
        link: asyncio.StreamWriter,
        output: int,
        log: LogFile,
        heard: Callable[[News], None],
        hold: Hold,
    ) -> None:
        self._process = process
        self.pid = process.pid
        self._link = link
        self._hold = hold
        self._readers = [
            asyncio.create_task(_listen(news, heard)),
            asyncio.create_task(_record(output, log)),
        ]

    @classmethod
    async def spawn(
        cls,
        argv: tuple[str, ...],
        environ: Mapping[str, str],
        log: LogFile,
        heard: Callable[[News], None],
        greeting: bytes = b"",
        hold: Hold = NOTHING,
    ) -> Self:
        """Starts a command. Its output goes to ``log``, its news to ``heard``; ``greeting`` is the
        first that it reads on the link. It inherits the sockets of ``hold``, which is released
        when it ends or is asked to. Raises ``OSError`` when it cannot be started.

        It is put in a session of its own, so that Ctrl-C reaches the launcher alone, which then
        stops its children in order.
        """
        ours, theirs = socket.socketpair()
        # Not asyncio's own pipe: with that, the end of a child is only noticed when all who hold
        # the pipe have ended, its own children included.
        output, its_output = os.pipe()
        handed = [theirs.fileno(), *(sock.fileno() for sock in hold.sockets)]
        link_fd, *listening = map(str, handed)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=its_output,
                stderr=its_output,
                pass_fds=handed,
                env={**environ, LINK: link_fd, SOCKETS: ",".join(listening)},
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(output)
            hold.release()
            raise
        finally:
            theirs.close()
            os.close(its_output)
        news, link = await asyncio.open_connection(sock=ours)
        started = cls(process, news, link, output, log, heard, hold)
        started.send(greeting)
        return started

    async def wait(self) -> int:
        """The exit code (negative: killed by that signal), once all it said has been taken and
        nothing of its group is left."""
        code = await self._process.wait()
        self._hold.release()
        self.kill()
        _, late = await asyncio.wait(self._readers, timeout=REST)
        for reader in late:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._link.close()
        return code

    def send(self, data: bytes) -> None:
        """Writes to its end of the link; one that is gone does not read it."""
        if data and not self._link.is_closing():
            self._link.write(data)

    def terminate(self) -> None:
        """Asks it to drain and end."""
        # First, so that its port is closed when it closes it and nobody else listens there.
        self._hold.release()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """Ends it and everything that it started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


async def _listen(news: asyncio.StreamReader, heard: Callable[[News], None]) -> None:
    try:
        while line := await news.readline():
            with contextlib.suppress(msgspec.MsgspecError):
                heard(decode(line))
    except (OSError, ValueError):
        return


async def _record(output: int, log: LogFile) -> None:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(output, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        while data := await reader.read(CHUNK):
            log.write(data)
    finally:
        transport.close()
