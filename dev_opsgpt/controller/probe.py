"""Health checks of attached OpenAI-compatible servers: they do not beat, so they are asked."""

import asyncio
import logging
from collections.abc import Collection, Sequence

from dev_opsgpt.controller.options import AttachedServer
from dev_opsgpt.controller.peers import PeerFailed, Peers
from dev_opsgpt.controller.registry import Registry
from dev_opsgpt.routing.table import Worker

logger = logging.getLogger(__name__)

FAILURES = 2


def by_url(servers: Sequence[AttachedServer]) -> list[list[AttachedServer]]:
    """The models grouped by the server they are on. Raises ``ValueError`` where one server is
    given two keys, or one model twice."""
    groups: dict[str, list[AttachedServer]] = {}
    for server in servers:
        group = groups.setdefault(server.url, [])
        if group and group[0].api_key != server.api_key:
            raise ValueError(f"{server.url} is attached with two different keys")
        if any(server.model == other.model for other in group):
            raise ValueError(f"{server.model!r} is attached twice at {server.url}")
        group.append(server)
    return list(groups.values())


def upstream_name(server: AttachedServer, listed: Collection[str]) -> str:
    """What the server calls the model: as configured, else the same name if it lists that, else
    the only one it lists, else the same name."""
    if server.upstream_model:
        return server.upstream_model
    if server.model not in listed and len(listed) == 1:
        return next(iter(listed))
    return server.model


def row(
    servers: Sequence[AttachedServer], listed: Collection[str], *, draining: bool = False
) -> Worker:
    """The row of one attached server with all its models; its limit is the largest of theirs."""
    return Worker(
        address=servers[0].url,
        models=tuple(server.model for server in servers),
        kind="openai",
        speed=max(server.speed for server in servers),
        limit=max(server.limit for server in servers),
        limited=all(server.limited for server in servers),
        draining=draining,
        upstream_models={server.model: upstream_name(server, listed) for server in servers},
        multimodal=any(server.multimodal for server in servers),
    )


class Probes:
    """Asks every attached server, and has those that answer in the registry."""

    def __init__(self, registry: Registry, peers: Peers, interval: float) -> None:
        self._registry = registry
        self._peers = peers
        self._interval = interval
        self._groups: dict[str, list[AttachedServer]] = {}
        self._tasks: dict[str, asyncio.Task[None]] | None = None

    def set(self, servers: Sequence[AttachedServer]) -> None:
        """Which servers there are from now on: one that is there no more has left, one that is
        used otherwise is asked anew. Raises ``ValueError`` as ``by_url``."""
        groups = {group[0].url: group for group in by_url(servers)}
        before, self._groups = self._groups, groups
        if self._tasks is None:
            return
        for url in before:
            if groups.get(url) != before[url]:
                self._tasks.pop(url).cancel()
                if url not in groups:
                    self._registry.remove(url, "left")
        for url in groups.keys() - self._tasks.keys():
            self._begin(url, self._tasks)

    def start(self) -> None:
        """Begins to ask."""
        self._tasks = {}
        for url in self._groups:
            self._begin(url, self._tasks)

    async def stop(self) -> None:
        """Asks no more."""
        tasks = list((self._tasks or {}).values())
        self._tasks = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, url: str, tasks: dict[str, asyncio.Task[None]]) -> None:
        probe = probe_forever(self._registry, self._peers, self._groups[url], self._interval)
        tasks[url] = asyncio.create_task(probe)


async def probe_forever(
    registry: Registry, peers: Peers, servers: Sequence[AttachedServer], interval: float
) -> None:
    """Asks one server for its models every ``interval`` seconds; it is in the registry from its
    first answer until it fails to answer twice in a row."""
    url, key = servers[0].url, servers[0].api_key
    failures = 0
    while True:
        try:
            listed = await peers.listed_models(url, key)
        except PeerFailed as error:
            failures += 1
            if failures == FAILURES:
                logger.warning("attached server %s is unhealthy: %s", url, error)
                registry.remove(url, "unhealthy")
        else:
            failures = 0
            known = registry.table.get(url)
            draining = known is not None and known.draining
            registry.register(row(servers, listed, draining=draining), lifetime=None)
        await asyncio.sleep(interval)
