"""Has the running service look at its configuration, and tells what came of it."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.config.paths import find_config_dir
from dev_opsgpt.launcher import runfile
from dev_opsgpt.launcher.outcomes import Journal, Outcome

POLL = 0.1

_STATES = {
    "nothing": "Nothing has changed.",
    "applied": "The configuration has changed:",
    "refused": "The configuration is refused; the one before stays in force:",
}

Tell = Callable[[str], None]


def reload(config_dir: Path | None, tell: Tell) -> bool:
    """Asks, waits until all of it is carried out, and tells it line by line. Gives whether all went
    well. Raises ``CliError`` where no service runs, or it ends meanwhile."""
    running = _running(config_dir)
    if running is None:
        raise CliError("No service of this configuration is running.")
    journal = Journal(Path(running.run_dir))
    before = _read(journal)
    number = max((outcome.number for outcome in before), default=0)
    asked = max((outcome.asked for outcome in before), default=0)
    os.kill(running.pid, signal.SIGHUP)
    new: list[Outcome] = []
    while not _answered(new, number, asked):
        time.sleep(POLL)
        if _running(config_dir) is None:
            raise CliError("The service has ended.")
        new = [outcome for outcome in _read(journal) if outcome.number > number]
    said = {(o.state, o.lines): o for o in new if o.state != "nothing"}
    for outcome in said.values():
        _tell(outcome, tell)
    if not said:
        tell(_STATES["nothing"])
        _tell_last(before, tell)
    return all(outcome.ok for outcome in new)


def _answered(new: Sequence[Outcome], number: int, asked: int) -> bool:
    """Whether the look that was asked for is over, and so are those that began before it: the
    service may have seen the change by itself, and may be carrying it out."""
    ours = min((outcome.number for outcome in new if outcome.asked > asked), default=None)
    if ours is None:
        return False
    return {outcome.number for outcome in new}.issuperset(range(number + 1, ours))


def _tell(outcome: Outcome, tell: Tell) -> None:
    tell(_STATES[outcome.state])
    for line in outcome.lines:
        tell(f"  {line.text}" if line.ok else f"  error: {line.text}")


def _tell_last(outcomes: Sequence[Outcome], tell: Tell) -> None:
    last = [outcome for outcome in outcomes if outcome.state == "applied"][-1:]
    for outcome in last:
        tell(f"What was changed last, at {time.strftime('%X', time.localtime(outcome.at))}:")
        for line in outcome.lines:
            tell(f"  {line.text}")


def _running(config_dir: Path | None) -> runfile.Running | None:
    # Found by its folder alone: what stands there may be wrong, and is to be told of.
    folder = find_config_dir(config_dir, os.environ)
    try:
        return runfile.read(runfile.run_file(folder, os.environ))
    except OSError:
        return None


def _read(journal: Journal) -> tuple[Outcome, ...]:
    try:
        return journal.read()
    except OSError:
        raise CliError("The service begins or ends just now; try again.") from None
