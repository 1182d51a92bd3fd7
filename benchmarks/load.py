"""Load on one URL by wrk, and what its callers saw; ``callers.py`` has callers of our own, for
what wrk is too impatient for."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks.contender import MODEL
from benchmarks.tools import path_of

SCRIPT = Path(__file__).with_name("load.lua")


class LoadFailed(Exception):
    """The load could not be put on, or none of it was answered."""


class Load(msgspec.Struct, frozen=True):
    """What the callers of one run saw: ``p50`` and ``p99`` are milliseconds for a whole answer,
    ``first`` is the median of those to the first token (which wrk does not tell), ``failed``
    counts the answers that were not a 200 or broke off."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int = 0
    first: float = 0.0


def request_body(*, stream: bool) -> bytes:
    """A chat request of an ordinary size."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello! What is your name? " * 8},
    ]
    value = {"model": MODEL, "messages": messages, "max_tokens": 100, "stream": stream}
    return msgspec.json.encode(value)


def short_requests(
    url: str, headers: Mapping[str, str], *, stream: bool, connections: int, seconds: int
) -> Load:
    """wrk on ``url``. Raises ``LoadFailed``."""
    pairs = [part for pair in headers.items() for part in pair]
    argv = [path_of("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    argv += ["-s", str(SCRIPT), url, "--", request_body(stream=stream).decode(), *pairs]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return parse_wrk(done.stdout, done.stderr)


def parse_wrk(out: str, err: str = "") -> Load:
    """wrk's output, as ``load.lua`` writes it. Raises ``LoadFailed``."""
    for line in out.splitlines():
        if line.startswith("FIGURES "):
            found = msgspec.json.decode(line.removeprefix("FIGURES "), type=Load)
            if found.requests:
                return found
    raise LoadFailed(f"wrk measured nothing: {err.strip() or out.strip()}")


def percentile(ordered: list[float], percent: float) -> float:
    """Of values in rising order, the one that ``percent`` of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]
