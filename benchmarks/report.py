"""A run's figures as tables for people (Markdown, so that they can be kept) and as JSON."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks import machine, targets
from benchmarks.contenders import DIRECT
from benchmarks.dataplane import Figures, Scenario
from benchmarks.engine import TokenFigures
from benchmarks.replicas import ReplicaFigures
from benchmarks.streams import StreamFigures

RIVALS = {"nginx": "nginx", "rust": "best Rust", "litellm": "LiteLLM"}


class Result(msgspec.Struct):
    """Everything one run found, and what it ran on. ``scenarios`` maps a scenario's name to its
    contenders' figures, ``names`` a contender to what the tables call it, ``versions`` to what was
    measured, ``left_out`` ("smg in A") to why it was not; ``idle`` a scenario to the CPU time, in
    per cent of a core, that all contenders but the one in turn used at worst."""

    at: str
    machine: dict[str, str]
    how: dict[str, int]
    names: dict[str, str]
    versions: dict[str, str]
    scenarios: dict[str, dict[str, Figures]] = {}
    idle: dict[str, float] = {}
    left_out: dict[str, str] = {}
    engine: list[TokenFigures] = []
    streams: list[StreamFigures] = []
    replicas: list[ReplicaFigures] = []


def new_result(names: dict[str, str], versions: dict[str, str], how: dict[str, int]) -> Result:
    """An empty result of this machine and moment; ``how`` holds the rounds and seconds."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Result(at=at, machine=machine.facts(), how=how, names=names, versions=versions)


def scenario_table(
    scenario: Scenario, figures: Mapping[str, Figures], names: Mapping[str, str]
) -> str:
    """One scenario's table; ratios are of CPU time, to the rivals that were measured."""
    rivals = targets.rivals(figures)
    direct = figures.get(DIRECT)
    rows = []
    for key, one in figures.items():
        ratios = [_ratio(one.cpu, rivals[rival]) for rival in rivals]
        added = "–" if direct is None or key == DIRECT else f"{one.first - direct.first:.2f}"
        times = [f"{one.rate:,.0f}", f"{one.p50:,.1f}", f"{one.p99:,.1f}", added]
        cpu = f"{one.cpu:,.3f}" if one.cpu else "–"
        rows.append([names[key], cpu, *ratios, *times, str(one.failed)])
    over = [f"× {RIVALS[rival]}" for rival in rivals]
    head = ["", "CPU ms/request", *over, "requests/s", "p50 ms", "p99 ms", "+ first token ms"]
    return f"{scenario.name}: {scenario.title}\n\n{markdown([*head, 'failed'], rows)}"


def _ratio(cpu: float, rival: float) -> str:
    if not cpu:
        return "–"
    return significant(cpu / rival)


def significant(value: float) -> str:
    """Two significant digits, all of what stands before the point."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.2g}" if value < 1 else f"{value:.1f}"


def targets_table(scenarios: Mapping[str, Mapping[str, Figures]]) -> str:
    """What was to be reached, and what was."""
    rows = []
    for target in targets.TARGETS:
        ratio = targets.reached(target, scenarios)
        verdict = "not measured" if ratio is None else "yes" if ratio <= target.ratio else "no"
        got = "–" if ratio is None else significant(ratio)
        rows.append(
            [f"{target.scenario} × {RIVALS[target.rival]}", f"{target.ratio:g}", got, verdict]
        )
    return markdown(["CPU time of a request", "to reach", "measured", "reached"], rows)


def engine_table(figures: Sequence[TokenFigures]) -> str:
    """Tokens a second through the whole path beside the engine's own listener."""
    rows = [
        [
            one.model,
            str(one.concurrent),
            f"{one.raw:,.0f}",
            f"{one.ours:,.0f}",
            f"{one.ratio or one.ours / one.raw:.2f}",
        ]
        for one in figures
    ]
    return markdown(
        ["model", "concurrent", "llama.cpp's own server", "gateway, worker, engine", "ratio"], rows
    )


def streams_table(figures: Sequence[StreamFigures]) -> str:
    """Streams that were open at once."""
    rows = [
        [
            str(one.processes),
            f"{one.at_once:,}",
            f"{one.failed:,}",
            f"{one.kibibytes:.1f}",
            f"{one.cpu:.2f}",
            f"{one.late:.0f}",
        ]
        for one in figures
    ]
    head = ["gateway processes", "open at once", "failed", "KiB/stream", "CPU ms/stream"]
    return markdown([*head, "p99 late ms"], rows)


def replicas_table(figures: Sequence[ReplicaFigures]) -> str:
    """A gateway that starts in front of many replicas."""
    rows = [
        [
            f"{one.replicas:,}",
            f"{one.registered:.1f}",
            f"{one.served:.1f}",
            f"{one.gateway_mebibytes:.0f}",
            f"{one.controller_mebibytes:.0f}",
            f"{one.gateway_cpu:.1f}",
            f"{one.controller_cpu:.1f}",
            f"{one.reached:,} ({one.least}–{one.most})",
            str(one.failed),
        ]
        for one in figures
    ]
    head = ["replicas", "registered after s", "gateway serves all after s", "gateway MiB"]
    head += ["controller MiB", "gateway CPU % idle", "controller CPU % idle"]
    return markdown([*head, "reached (requests each)", "failed"], rows)


def machine_text(result: Result) -> str:
    """What was measured, on what, how."""
    facts = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    # Ours is one program, however many ways it is measured.
    programs = {
        f"{result.names[name].partition(',')[0]} {version}": None
        for name, version in result.versions.items()
        if version
    }
    versions = ", ".join(programs)
    how = ", ".join(f"{name} {value}" for name, value in result.how.items())
    lines = [f"{result.at}: {facts}; {how}.", f"Versions: {versions}."]
    if result.idle:
        idle = ", ".join(f"{value:.1f} % in {name}" for name, value in result.idle.items())
        lines.append(f"CPU time, of one core, of all whose turn it was not, at worst: {idle}.")
    if result.left_out:
        lines.append(f"Not measured: {', '.join(result.left_out)}.")
    return "\n\n".join(lines)


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


def read(path: Path) -> Result:
    """The result of an earlier run. Raises ``OSError``, ``msgspec.ValidationError``."""
    return msgspec.json.decode(path.read_bytes(), type=Result)
