"""Nothing in between: what the upstream and the load generator can do by themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path


class Direct:
    """No router at all."""

    name = "direct (no router)"

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}

    def start(self, upstream: str, folder: Path) -> None:
        """Takes the upstream's own address."""
        self.url = upstream

    def pids(self) -> Sequence[int]:
        """None."""
        return ()

    def stop(self) -> None:
        """Nothing to end."""
