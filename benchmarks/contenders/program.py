"""What routers of others have in common: one program from an environment of its own."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.contender import Target
from benchmarks.environment import Environment
from benchmarks.processes import Process, free_port

START = 300.0
"""Seconds to start: LiteLLM imports for half a minute where nothing else runs."""


class Program(ABC):
    """A router that is configured by its command line, environment and files in a folder."""

    name: str
    package: str
    """Its name on PyPI, and its environment's."""
    environ: Mapping[str, str] = {}
    rewrites = False
    heavy = False

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self.environment = Environment(self.package)
        self._process: Process | None = None

    def version(self) -> str:
        """As its requirements fix it."""
        return self.environment.version(self.package)

    @abstractmethod
    def command(self, upstream: Target, folder: Path, port: int) -> Sequence[str]:
        """What to run, with whatever files it needs written."""

    def start(self, upstream: Target, folder: Path) -> None:
        """Installs it if need be; returns when it has found the upstream."""
        self.environment.ensure()
        port = free_port()
        argv = self.command(upstream, folder, port)
        self._process = Process(
            argv, folder / "router.log", env=clean_environ(self.environ), cwd=folder
        )
        self.url = f"http://127.0.0.1:{port}/v1"
        self._process.wait_for(
            f"{self.url}/models", contains='"id"', headers=self.headers, timeout=START
        )

    def pids(self) -> Sequence[int]:
        """The program; its workers are its children."""
        return [self._process.pid] if self._process is not None else []

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.stop()


def clean_environ(more: Mapping[str, str]) -> dict[str, str]:
    """What another environment's program needs over ours: none of our modules, no proxy."""
    proxies = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    return {"PYTHONPATH": "", **proxies, **more}
