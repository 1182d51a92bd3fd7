"""Shepherd Model Gateway (Rust), for one static worker. Metrics, retries, health checks and its
circuit breaker are on, as by default."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.contender import Target
from benchmarks.contenders.program import Program
from benchmarks.processes import free_port


class Smg(Program):
    """``round_robin`` is its cheapest policy: the default, ``cache_aware``, keeps a tree."""

    name = "SMG (Rust)"
    package = "smg"

    def command(self, upstream: Target, folder: Path, port: int) -> Sequence[str]:
        """Logs warnings only; looks for no tokenizer, which it has no need of here."""
        return [
            *(self.environment.program("smg"), "launch"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--worker-urls", upstream.url.removesuffix("/v1")),
            *("--worker-startup-check-interval", "1", "--shutdown-grace-period-secs", "1"),
            *("--policy", "round_robin", "--log-level", "warn"),
            *("--prometheus-port", str(free_port())),
            "--disable-tokenizer-autoload",
        ]
