"""All contenders are up at once and take turns on the same requests, so that what else goes on on
the machine hits each alike."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from benchmarks.processes import StartFailed

NOT_THIS_MANY = {"threads": 8}
"""More at once than this are left out: minutes of waiting for a known ending."""


class Taker(Protocol):
    """Does jobs, one at a time."""

    def do(self, job: dict[str, Any]) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Child:
    """A contender of ``contenders`` in a process of its own."""

    def __init__(self, name: str, folder: Path, device: str, log: Path, threads: int) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.engines.child"),
                *(name, str(folder), device, str(threads)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
            text=True,
        )
        self._read()

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Raises ``StartFailed`` with the end of its log where it dies."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise StartFailed(self._log.read_text(errors="replace")[-2000:])
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass
class Figures:
    """Of one contender at one number of requests at once; a value a round."""

    rates: list[float] = field(default_factory=list)
    """Generated tokens a second."""
    cpu_rates: list[float] = field(default_factory=list)
    """Generated tokens a second of processor time."""
    firsts: list[float] = field(default_factory=list)
    """Seconds to the first token, the median of a wave."""
    newcomers: list[float] = field(default_factory=list)
    """Seconds to the first token of a request that comes while the others generate."""
    steps: list[float] = field(default_factory=list)
    """The same in steps of the model."""
    memory: int = 0


Results = dict[int, dict[str, Figures]]


def measure(
    takers: dict[str, Taker],
    *,
    concurrent: Sequence[int],
    tokens: int,
    rounds: int,
    say: Callable[[str], None],
) -> Results:
    """Warms all up, then lets them take turns."""
    source = random.Random(0)
    for taker in takers.values():
        taker.do({"kind": "wave", "texts": texts(source, 2), "tokens": 4})
    results: Results = {}
    for many in concurrent:
        able = [name for name in takers if many <= NOT_THIS_MANY.get(name, many)]
        found = results[many] = {name: Figures() for name in able}
        for turn in range(rounds):
            asked = texts(source, many)
            # Who goes first changes, so that nobody always follows the same.
            for name in able[turn % len(able) :] + able[: turn % len(able)]:
                _turn(takers[name], asked, tokens, found[name])
                say(f"{many} at once, {name}: {found[name].rates[-1]:.1f} tokens/s")
    return results


def _turn(taker: Taker, asked: list[str], tokens: int, figures: Figures) -> None:
    done = taker.do({"kind": "wave", "texts": asked, "tokens": tokens})
    made = len(asked) * tokens
    figures.rates.append(made / done["seconds"])
    figures.cpu_rates.append(made / done["cpu"])
    figures.firsts.append(median(done["firsts"]))
    figures.memory = done["memory"]
    if len(asked) > 1:
        late = taker.do({"kind": "newcomer", "texts": asked, "tokens": tokens})["newcomer"]
        if late is not None:
            figures.newcomers.append(late["seconds"])
            figures.steps += [late["steps"]] if "steps" in late else []


def texts(source: random.Random, count: int) -> list[str]:
    """As many different prompts of about fifty tokens."""
    words = _WORDS.split()
    return [" ".join(source.choice(words) for _ in range(40)) for _ in range(count)]


_WORDS = (
    "return value list index error string open close file socket thread lock queue event time "
    "table row column hash tree node edge path graph count total first last next previous start "
    "stop read write send receive parse format encode decode compress split join sort search"
)
