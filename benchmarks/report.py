"""A run's figures as tables for people (Markdown, so that they can be kept) and as JSON."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.dataplane import Figures, Scenario
from benchmarks.engine import TokenFigures


class Result(msgspec.Struct):
    """Everything one run found, and what it ran on. ``scenarios`` maps a scenario's name to its
    contenders' figures, ``names`` a contender to what the tables call it."""

    at: str
    cores: int
    python: str
    load_before: float
    names: dict[str, str]
    scenarios: dict[str, dict[str, Figures]]
    engine: list[TokenFigures]


def new_result(names: dict[str, str]) -> Result:
    """An empty result of this machine and moment."""
    return Result(
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        load_before=round(os.getloadavg()[0], 2),
        names=names,
        scenarios={},
        engine=[],
    )


def scenario_table(
    scenario: Scenario, figures: dict[str, Figures], names: dict[str, str], baseline: str
) -> str:
    """One scenario's table; ratios are to ``baseline``, where it was measured."""
    base = figures.get(baseline)
    rows = []
    for key, one in figures.items():
        ratio = f"{one.cpu / base.cpu:.1f}" if base is not None and base.cpu and one.cpu else "–"
        cpu = f"{one.cpu:.3f}" if one.cpu else "–"
        cells = [names[key], cpu, ratio, f"{one.rate:,.0f}", f"{one.p50:.1f}", f"{one.p99:.1f}"]
        rows.append([*cells, str(one.failed)])
    head = ["", "CPU ms/request", "× nginx", "requests/s", "p50 ms", "p99 ms", "failed"]
    return f"{scenario.name}: {scenario.title}\n\n{markdown(head, rows)}"


def engine_table(figures: Sequence[TokenFigures]) -> str:
    """Tokens a second through the whole path beside the engine's own listener."""
    rows = [
        [str(one.concurrent), f"{one.raw:,.0f}", f"{one.ours:,.0f}", f"{one.ours / one.raw:.2f}"]
        for one in figures
    ]
    head = ["concurrent", "llama.cpp's own server", "gateway, worker, engine", "ratio"]
    return f"Engine: generated tokens/s, tiny-chat on the CPU\n\n{markdown(head, rows)}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns line up; numbers to the right."""
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(
        "-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)
    )
    return "\n".join([line(head), f"|{rule}|", *(line(row) for row in rows)])


def write(result: Result, folder: Path) -> Path:
    """Writes the result as JSON and gives the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.at.replace(':', '')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return path
