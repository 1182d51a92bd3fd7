"""``python -m benchmarks``: runs everything, prints the tables, writes the figures as JSON and,
with ``--write-docs``, into docs/benchmarks.md."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import dataplane, engine, pages, replicas, report, streams
from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.load import LoadFailed
from benchmarks.processes import StartFailed
from benchmarks.tools import ToolMissing, ensure_tools

RESULTS = Path(__file__).parents[1] / ".cache" / "benchmarks"
PARTS = (*(scenario.name for scenario in dataplane.SCENARIOS), "engine", "streams", "replicas")
GATEWAYS = {1: OURS, 2: f"{OURS}-2"}
"""Our contender by its number of gateway processes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code: 1 where something could not be measured."""
    arguments = _arguments(argv)
    try:
        result = report.read(arguments.read) if arguments.read else _run(arguments)
    except (ToolMissing, OSError, msgspec.ValidationError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n\n".join(f"{name}:\n\n{body}" for name, body in pages.parts(result).items()))
    if not arguments.read:
        print(f"\nThe figures as JSON: {report.write(result, arguments.out)}")
    if arguments.write_docs:
        pages.write(result)
    for name, why in result.left_out.items():
        print(f"Not measured: {name}: {why}", file=sys.stderr)
    return 1 if result.left_out else 0


def _run(arguments: argparse.Namespace) -> report.Result:
    ensure_tools()
    made = {name: CONTENDERS[name]() for name in arguments.contenders}
    result = report.new_result(
        {name: one.name for name, one in made.items()},
        {name: one.version() for name, one in made.items()},
        {"rounds": arguments.rounds, "seconds": arguments.seconds},
    )
    with tempfile.TemporaryDirectory(prefix="opsgpt-bench-") as folder:
        for part in PARTS:
            if part in arguments.only:
                try:
                    _measure(part, arguments, Path(folder), result)
                except (StartFailed, LoadFailed) as error:
                    result.left_out[part] = str(error)
    return result


def _measure(part: str, arguments: argparse.Namespace, folder: Path, result: report.Result) -> None:
    rounds, seconds = arguments.rounds, arguments.seconds
    if part == "engine":
        result.engine = engine.measure(folder / part, rounds=rounds, seconds=seconds, say=_say)
    elif part == "streams":
        chosen = {number: CONTENDERS[GATEWAYS[number]] for number in arguments.gateway_workers}
        result.streams = streams.measure(chosen, folder, count=arguments.streams, say=_say)
    elif part == "replicas":
        figures = replicas.measure(
            folder / part, count=arguments.replicas, seconds=seconds, say=_say
        )
        result.replicas = [figures]
    else:
        scenario = next(one for one in dataplane.SCENARIOS if one.name == part)
        factories = {name: CONTENDERS[name] for name in arguments.contenders}
        turns = dataplane.measure(
            scenario, factories, folder, rounds=rounds, seconds=seconds, say=_say
        )
        result.scenarios[part] = turns.figures()
        result.idle[part] = turns.idle
        result.left_out |= {f"{name} in {part}": why for name, why in turns.left_out.items()}


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="to compare")
    add("--rounds", type=int, default=2, help="measurements of each (2)")
    add("--seconds", type=int, default=4, help="length of each measurement (4)")
    add("--streams", type=int, default=5000, help="streams to open at once (5000)")
    add("--gateway-workers", type=int, nargs="+", choices=GATEWAYS, default=[1, 2], help="for them")
    add("--replicas", type=int, default=1000, help="replicas to start in front of (1000)")
    add("--out", type=Path, default=RESULTS, help="folder for the JSON")
    add("--read", type=Path, help="a JSON file of an earlier run, instead of a run")
    add("--write-docs", action="store_true", help="write the figures into docs/benchmarks.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
