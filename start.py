"""Starts the service: `python start.py`. What is started, and where, stands in configs/."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Runs until it is stopped; the exit code."""
    parser = argparse.ArgumentParser(
        description="Starts everything that the configuration names: controller, models, gateway."
    )
    parser.add_argument("--config", type=Path, metavar="DIR", help="folder of the configuration")
    parser.add_argument("-q", "--quiet", action="store_true", help="show trouble only, log less")
    arguments = parser.parse_args()

    from dev_opsgpt.launcher.interrupts import plain_interrupts

    with plain_interrupts():
        from dev_opsgpt.launcher.command import launch
        from dev_opsgpt.launcher.plan import Selection

    return launch(arguments.config, Selection(), quiet=arguments.quiet)


if __name__ == "__main__":
    sys.exit(main())
