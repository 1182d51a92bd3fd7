"""The channel to launchers: the controller asks, a launcher starts and stops processes.

A launcher holds one streamed answer open, on which commands come, and posts a reply to each.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

import msgspec

from dev_opsgpt.controller.messages import Command, LauncherHello, LauncherReply
from dev_opsgpt.controller.watch import PING_AFTER
from dev_opsgpt.routing.updates import Ping

logger = logging.getLogger(__name__)


class LauncherFailed(Exception):
    """A command failed or could not be given; the message says why."""


class LauncherLost(LauncherFailed):
    """The launcher is not there, or left before it had answered."""


@dataclass(eq=False)
class _Channel:
    name: str
    models: frozenset[str]
    # None ends the stream. Each entry is a release in progress, so the queue stays short.
    lines: asyncio.Queue[Command | None] = field(default_factory=asyncio.Queue)
    waiting: dict[str, asyncio.Future[LauncherReply]] = field(default_factory=dict)

    def end(self, why: str) -> None:
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(LauncherLost(f"the launcher {self.name!r} {why}"))
        self.waiting.clear()
        self.lines.put_nowait(None)


class Launchers:
    """The launchers that are connected now, by name. ``came`` and ``left`` are told of them;
    the former also of one whose models have changed, which is then true."""

    def __init__(
        self,
        came: Callable[[LauncherHello, bool], None] = lambda hello, changed: None,
        left: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._channels: dict[str, _Channel] = {}
        self._closed = False
        self._came = came
        self._left = left

    async def connect(self, hello: LauncherHello) -> AsyncGenerator[bytes, None]:
        """The lines for one launcher, a ping first. One that connects again under its name takes
        the place of its older connection."""
        channel = _Channel(hello.name, frozenset(hello.models))
        older = self._channels.pop(hello.name, None)
        if older is not None:
            older.end("connected anew")
        self._channels[hello.name] = channel
        logger.info("launcher connected: %r", hello.name)
        self._came(hello, False)
        if self._closed:
            channel.end("was sent away")
        try:
            yield _line(Ping())
            async for line in _lines(channel):
                yield line
        finally:
            channel.end("has left")
            if self._channels.get(hello.name) is channel:
                del self._channels[hello.name]
                self._left(hello.name)
                logger.info("launcher left: %r", hello.name)

    def announce(self, hello: LauncherHello) -> bool:
        """Takes what a connected launcher can start from now on; false when it is not known."""
        channel = self._channels.get(hello.name)
        if channel is None:
            return False
        channel.models = frozenset(hello.models)
        self._came(hello, True)
        return True

    def connected(self, name: str | None) -> bool:
        """Whether a launcher of that name is there."""
        return name in self._channels

    def able(self, model: str, preferred: Collection[str | None] = ()) -> str | None:
        """The name of a launcher that can start a model, a preferred one if it can."""
        names = [name for name, channel in self._channels.items() if model in channel.models]
        return min(names, key=lambda name: name not in preferred, default=None)

    async def command(
        self,
        launcher: str,
        order: Literal["start", "stop", "load", "unload"],
        model: str,
        address: str | None,
        seconds: float,
        *,
        replicas: int | None = None,
        demanded: bool = False,
    ) -> None:
        """Has a launcher do something, and waits until it says that it is done.

        Raises ``LauncherFailed`` when it says that it failed, leaves, or does not answer in time.
        """
        channel = self._channels.get(launcher)
        if channel is None:
            raise LauncherLost(f"the launcher {launcher!r} is not connected")
        command = Command(order, uuid4().hex, model, address, replicas, demanded)
        future: asyncio.Future[LauncherReply] = asyncio.get_running_loop().create_future()
        channel.waiting[command.id] = future
        channel.lines.put_nowait(command)
        try:
            async with asyncio.timeout(seconds):
                reply = await future
        except TimeoutError:
            raise LauncherFailed(
                f"the launcher {launcher!r} did not {order} {model!r} within {seconds:g} s"
            ) from None
        finally:
            channel.waiting.pop(command.id, None)
        if not reply.ok:
            raise LauncherFailed(reply.msg or f"the launcher {launcher!r} gave no reason")

    def reply(self, reply: LauncherReply) -> bool:
        """Takes a launcher's reply; false when nobody waits for it (any more)."""
        for channel in self._channels.values():
            future = channel.waiting.get(reply.id)
            if future is not None and not future.done():
                future.set_result(reply)
                return True
        return False

    def close(self) -> None:
        """Ends all connections, now and to come, so that a server with open ones can stop."""
        self._closed = True
        for channel in self._channels.values():
            channel.end("was sent away")


async def _lines(channel: _Channel) -> AsyncGenerator[bytes, None]:
    while True:
        try:
            async with asyncio.timeout(PING_AFTER):
                command = await channel.lines.get()
        except TimeoutError:
            yield _line(Ping())
            continue
        if command is None:
            return
        yield _line(command)


def _line(message: Command | Ping) -> bytes:
    return msgspec.json.encode(message) + b"\n"
