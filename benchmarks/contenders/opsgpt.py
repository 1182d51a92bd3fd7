"""Ours, from an attached OpenAI server without client keys to a registered worker with everything
on. The CPU time of controller and gateway counts.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.cluster import Cluster
from benchmarks.contender import MODEL, Target
from dev_opsgpt import __version__

KEY = "sk-benchmark"
# As the other routers have it; theirs and ours look at prompts by default.
POLICY = "round_robin"
# So high that nobody is refused, yet all are counted.
LIMITS = MappingProxyType({"rpm": 1_000_000_000, "tpm": 2_000_000_000, "concurrent": 100_000})


class Attached:
    """The upstream is configured as an ``openai_server``."""

    name = "this gateway, attached server"
    rewrites = False
    heavy = False
    client_key = ""
    gateway: Mapping[str, Any] = MappingProxyType({"usage": False})
    """Its section of the settings."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self._cluster: Cluster | None = None

    def version(self) -> str:
        """Ours."""
        return __version__

    def start(self, upstream: Target, folder: Path) -> None:
        """Returns when the gateway routes to the upstream."""
        settings = {
            "FSCHAT_CONTROLLER": {"dispatch_method": POLICY},
            "FSCHAT_OPENAI_API": dict(self.gateway),
            **self.workers(upstream),
        }
        self._cluster = cluster = Cluster(folder, settings, client_key=self.client_key)
        cluster.start()
        self.join(cluster, upstream)
        cluster.wait_for(MODEL)
        self.url = f"{cluster.gateway}/v1"
        self.headers = self.callers_headers(cluster)

    def workers(self, upstream: Target) -> Mapping[str, Any]:
        """The settings that make the controller find the upstream."""
        return {"FSCHAT_MODEL_WORKERS": {MODEL: {"openai_server": upstream.url}}}

    def join(self, cluster: Cluster, upstream: Target) -> None:
        """Nothing more to do: the controller finds it."""

    def callers_headers(self, cluster: Cluster) -> Mapping[str, str]:
        """What callers send."""
        return cluster.headers

    def pids(self) -> Sequence[int]:
        """Controller and gateways."""
        if self._cluster is None:
            return []
        return [*self._cluster.controller_pids(), *self._cluster.gateway_pids()]

    def stop(self) -> None:
        """Ends them."""
        if self._cluster is not None:
            self._cluster.stop()


class Keyed(Attached):
    """The upstream is registered as one of our workers is, and beats (``beats.py`` does it for
    it, in a process that does not count); callers need a key."""

    name = "this gateway, worker, API keys on"
    client_key = KEY

    def workers(self, upstream: Target) -> Mapping[str, Any]:
        """None: it registers."""
        return {}

    def join(self, cluster: Cluster, upstream: Target) -> None:
        """Registers it."""
        address = upstream.url.removesuffix("/v1")
        argv = [sys.executable, "-m", "benchmarks.beats", cluster.controller, MODEL, address]
        cluster.run(argv, "beats")


class Everything(Keyed):
    """With what a deployment turns on: a virtual key with limits, usage records, metrics, retries
    and circuit breakers."""

    name = "this gateway, everything on"
    gateway = MappingProxyType({"usage": True, "access_log": False, "retries": 2})

    def callers_headers(self, cluster: Cluster) -> Mapping[str, str]:
        """A key that counts."""
        return {"authorization": f"Bearer {cluster.virtual_key(**LIMITS)}"}


class TwoProcesses(Everything):
    """The same on one port in two processes, which share limits and records."""

    name = "this gateway, everything on, two processes"
    gateway = MappingProxyType({**Everything.gateway, "gateway_workers": 2})
