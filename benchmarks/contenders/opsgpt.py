"""Ours, two ways: an attached OpenAI server without client keys, and a registered worker with.

The CPU time of controller and gateway counts.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.cluster import Cluster
from benchmarks.contender import MODEL

KEY = "sk-benchmark"


class Attached:
    """The upstream is configured as an ``openai_server``."""

    name = "this gateway, attached server"

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self._cluster: Cluster | None = None

    def start(self, upstream: str, folder: Path) -> None:
        """Returns when the gateway routes to the upstream."""
        settings = {"FSCHAT_MODEL_WORKERS": {MODEL: {"openai_server": upstream}}}
        self._start(Cluster(folder, settings), upstream)

    def _start(self, cluster: Cluster, upstream: str) -> None:
        self._cluster = cluster
        cluster.start()
        self._join(cluster, upstream)
        cluster.wait_for(MODEL)
        self.url = f"{cluster.gateway}/v1"
        self.headers = cluster.headers

    def _join(self, cluster: Cluster, upstream: str) -> None:
        """The controller finds it in its configuration."""

    def pids(self) -> Sequence[int]:
        """Controller and gateway."""
        return self._cluster.pids() if self._cluster is not None else []

    def stop(self) -> None:
        """Ends them."""
        if self._cluster is not None:
            self._cluster.stop()


class Keyed(Attached):
    """The upstream is registered as one of our workers is, and beats (``beats.py`` does it for
    it, in a process that does not count); callers need a key."""

    name = "this gateway, worker, API keys on"

    def start(self, upstream: str, folder: Path) -> None:
        """Returns when the gateway routes to the upstream."""
        self._start(Cluster(folder, {}, client_key=KEY), upstream)

    def _join(self, cluster: Cluster, upstream: str) -> None:
        address = upstream.removesuffix("/v1")
        argv = [sys.executable, "-m", "benchmarks.beats", cluster.controller, address, MODEL]
        cluster.run(argv, "beats")
