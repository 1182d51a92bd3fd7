"""Nothing in between: what the upstream and the load generator can do by themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.contender import Target


class Direct:
    """No router at all."""

    name = "direct (no router)"
    rewrites = False
    heavy = False

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}

    def version(self) -> str:
        """None."""
        return ""

    def start(self, upstream: Target, folder: Path) -> None:
        """Takes the upstream's own address."""
        self.url = upstream.url

    def pids(self) -> Sequence[int]:
        """None."""
        return ()

    def stop(self) -> None:
        """Nothing to end."""
