"""``python -m benchmarks.simulator``: simulates fleets under each dispatch policy, prints a table
for each scenario and writes the figures as JSON. The same seed gives the same figures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.simulator.report import Run, table, write
from benchmarks.simulator.scenario import Scenario
from benchmarks.simulator.scenarios import SCENARIOS, short
from benchmarks.simulator.simulation import Simulation
from dev_opsgpt.routing.policies import POLICIES

RESULT = Path(__file__).parents[2] / ".cache" / "benchmarks" / "dispatch.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code."""
    arguments = _arguments(argv)
    runs = []
    for scenario in SCENARIOS:
        if scenario.name in arguments.only:
            chosen = short(scenario) if arguments.quick else scenario
            runs.append(simulate(chosen, arguments.policies, arguments.seed))
            print(f"\n{table(runs[-1])}", flush=True)
    write(runs, arguments.out)
    print(f"\nThe figures as JSON: {arguments.out}")
    return 0


def simulate(scenario: Scenario, policies: Sequence[str], seed: int) -> Run:
    """One scenario under each policy."""
    figures = {}
    repeated = 0.0
    for policy in policies:
        print(f"  {scenario.name}: {policy}", file=sys.stderr, flush=True)
        counts = Simulation(scenario, policy, seed).run()
        figures[policy], repeated = counts.figures(), counts.repeated
    return Run(scenario, repeated, figures)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="scenarios to run")
    parser.add_argument(
        "--policies", nargs="+", choices=POLICIES, default=list(POLICIES), help="to compare"
    )
    parser.add_argument("--quick", action="store_true", help="shorter, with a smaller crowd")
    parser.add_argument("--seed", type=int, default=1, help="of all chance (1)")
    parser.add_argument("--out", type=Path, default=RESULT, help="file for the JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
