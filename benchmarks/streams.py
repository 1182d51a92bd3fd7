"""Thousands of streams open at once through one gateway, everything on: whether all of them end
well, and the memory that each takes.

Callers come ten every 20 ms: 5,000 streams are open after ten seconds, and each lasts 29.
"""

import asyncio
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop

from benchmarks import mock
from benchmarks.callers import PATIENCE, Caller, Plan, connect, never
from benchmarks.check import expected
from benchmarks.contender import Contender, Factory, Kind
from benchmarks.dataplane import TOKENS
from benchmarks.load import LoadFailed, percentile, request_body
from benchmarks.processes import cpu_seconds, resident_bytes
from benchmarks.upstream import Upstream

FEW = 20
SPARE_FILES = 500


class StreamFigures(msgspec.Struct, frozen=True):
    """With so many gateway ``processes``: the streams that were open ``at_once``, how many
    ``failed``, what each took of memory (``kibibytes``) and CPU time (``cpu``, milliseconds), and
    by how many milliseconds 99 % were at most ``late`` to end."""

    processes: int
    at_once: int
    failed: int
    kibibytes: float
    cpu: float
    late: float


def measure(
    factories: Mapping[int, Factory],
    folder: Path,
    *,
    count: int,
    say: Callable[[str], None],
    kind: Kind = "slow",
) -> list[StreamFigures]:
    """``factories`` gives the contender for a number of gateway processes, ``kind`` is the
    upstream's. Raises ``StartFailed``, ``LoadFailed``."""
    allow_files(2 * count + SPARE_FILES)
    found = []
    for processes, make in factories.items():
        say(f"{count:,} streams at once, gateway processes: {processes}")
        own = folder / f"streams-{processes}"
        own.mkdir(parents=True)
        found.append(_one(processes, make(), kind, own, count))
    return found


def allow_files(wanted: int) -> None:
    """Raises this process's limit of open files, and that of those it starts, to ``wanted``.
    Raises ``LoadFailed`` where the system allows fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise LoadFailed(f"This needs {wanted} open files; the system allows {hard}: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _one(
    processes: int, contender: Contender, kind: Kind, folder: Path, count: int
) -> StreamFigures:
    with ExitStack() as stack:
        server = Upstream(kind, folder)
        stack.callback(server.stop)
        server.wait()
        stack.callback(contender.stop)
        contender.start(server.target, folder)
        return uvloop.run(_open(processes, contender, kind, count))


async def _open(processes: int, contender: Contender, kind: Kind, count: int) -> StreamFigures:
    # What a gateway loads for its first streams is not a stream's.
    await _first_tokens(few := await connect(_plan(contender, kind, FEW), never))
    _hang_up(few)
    memory, spent = resident_bytes(contender.pids()), cpu_seconds(contender.pids())
    callers = await connect(_plan(contender, kind, count), never)
    await _first_tokens(callers)
    at_once = sum(bool(caller.first) and not caller.done.done() for caller in callers)
    memory = resident_bytes(contender.pids()) - memory
    await asyncio.wait([caller.done for caller in callers], timeout=PATIENCE)
    _hang_up(callers)
    times = sorted(taken for caller in callers for taken in caller.times)
    if not times:
        raise LoadFailed("no stream ended well")
    shape, size = mock.SHAPES[kind], len(expected(kind))
    return StreamFigures(
        processes=processes,
        at_once=at_once,
        failed=sum(bool(caller.failed) or caller.size != size for caller in callers),
        kibibytes=memory / 1024 / count,
        cpu=(cpu_seconds(contender.pids()) - spent) * 1000 / count,
        late=(percentile(times, 99) - (shape.events - 1) * shape.pace) * 1000,
    )


def _plan(contender: Contender, kind: Kind, count: int) -> Plan:
    return Plan(
        url=f"{contender.url}/chat/completions",
        headers=contender.headers,
        body=request_body(stream=True),
        token=TOKENS[kind],
        concurrent=count,
        seconds=0,
    )


def _hang_up(callers: Sequence[Caller]) -> None:
    for caller in callers:
        caller.give_up()


async def _first_tokens(callers: Sequence[Caller]) -> None:
    """Waits until all have one, as long as the first streams last."""
    deadline = time.perf_counter() + 10
    while time.perf_counter() < deadline:
        if all(caller.first or caller.done.done() for caller in callers):
            return
        await asyncio.sleep(0.1)
