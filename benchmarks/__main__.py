"""``python -m benchmarks``: runs everything, prints the tables, writes the figures as JSON."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import dataplane, engine, report
from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.load import LoadFailed
from benchmarks.processes import StartFailed
from benchmarks.tools import ToolMissing, ensure_tools

RESULTS = Path(__file__).parents[1] / ".cache" / "benchmarks"
PARTS = (*(scenario.name for scenario in dataplane.SCENARIOS), "engine")


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code: 1 where something could not be measured."""
    arguments = _arguments(argv)
    result = report.new_result({name: make().name for name, make in CONTENDERS.items()})
    try:
        ensure_tools()
        with tempfile.TemporaryDirectory(prefix="opsgpt-bench-") as folder:
            _measure(arguments, Path(folder), result)
    except (ToolMissing, StartFailed, LoadFailed) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The figures as JSON: {report.write(result, arguments.out)}")
    return 0


def _measure(arguments: argparse.Namespace, folder: Path, result: report.Result) -> None:
    chosen = {name: CONTENDERS[name] for name in arguments.contenders}
    for scenario in dataplane.SCENARIOS:
        if scenario.name in arguments.only:
            figures = result.scenarios[scenario.name] = dataplane.measure(
                scenario,
                chosen,
                folder,
                rounds=arguments.rounds,
                seconds=arguments.seconds,
                say=_say,
            )
            print(f"\n{report.scenario_table(scenario, figures, result.names, BASELINE)}\n")
    if "engine" in arguments.only:
        result.engine = engine.measure(
            folder / "engine", rounds=arguments.rounds, seconds=arguments.seconds, say=_say
        )
        print(f"\n{report.engine_table(result.engine)}\n")


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="to compare"
    )
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each (2)")
    parser.add_argument("--seconds", type=int, default=4, help="length of each measurement (4)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
