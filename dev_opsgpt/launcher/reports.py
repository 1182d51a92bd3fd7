"""The launcher's word to the controller: what it can load, and what it has."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from dev_opsgpt.launcher.client import CallFailed, Calls, Hello
from dev_opsgpt.routing.cards import Bounds, Card, Part

log = logging.getLogger(__name__)

# Changes are gathered for so long: a model that loads has news all the time.
GATHER = 0.3
# Without any news it is told anew: a report may have been lost.
ANEW = 5.0


class Reports:
    """Tells the controller whenever something has changed. The rest gives what there is now:
    ``models`` the names that can be started, ``cards`` the local ones of them, ``parts`` the
    replicas, ``released`` the models that somebody has stopped, ``failures`` why others do not
    run."""

    def __init__(
        self,
        calls: Calls,
        name: str,
        *,
        models: Callable[[], list[str]],
        cards: Callable[[], list[Card]],
        bounds: Callable[[], Bounds],
        parts: Callable[[], list[Part]],
        released: Callable[[], list[str]],
        failures: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._calls = calls
        self._name = name
        self._models = models
        self._cards = cards
        self._bounds = bounds
        self._parts = parts
        self._released = released
        self._failures = failures
        self._news = asyncio.Event()
        # A report must not overtake a later one.
        self._turn = asyncio.Lock()

    def hello(self) -> Hello:
        """All of it."""
        return Hello(
            name=self._name,
            models=self._models(),
            cards=self._cards(),
            bounds=self._bounds(),
            parts=self._parts(),
            released=self._released(),
            failures=self._failures(),
        )

    def stir(self) -> None:
        """Something has changed."""
        self._news.set()

    async def run(self) -> None:
        """Reports what changes; never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANEW):
                    await self._news.wait()
            await self.send()
            await asyncio.sleep(GATHER)

    async def send(self) -> None:
        """Tells what there is now. A controller that is away is told when it is back."""
        async with self._turn:
            self._news.clear()
            try:
                await self._calls.report(
                    self._name, self._parts(), self._released(), self._failures()
                )
            except CallFailed as error:
                log.debug("no report: %s", error)

    async def announce(self) -> None:
        """Tells what can be loaded now. Raises ``CallFailed``."""
        async with self._turn:
            await self._calls.announce(self.hello())
