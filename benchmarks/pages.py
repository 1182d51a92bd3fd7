"""Puts a run's figures into the documentation: docs/benchmarks.md between its marks, and the
picture beside it."""

import re
from pathlib import Path

from benchmarks import plot, report
from benchmarks.dataplane import SCENARIOS
from benchmarks.report import Result

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
PICTURE = DOCS / "images" / "benchmarks.svg"
IMAGE = f"![CPU time of a request, by router](images/{PICTURE.name})"
OURS = frozenset({"attached", "keyed", "everything", "everything-2"})


class MarkMissing(Exception):
    """The page has no place for a part; the message says which."""


def write(result: Result, page: Path = PAGE, picture: Path = PICTURE) -> None:
    """Replaces what the result has figures of. Raises ``MarkMissing``."""
    text = page.read_text()
    for name, body in parts(result).items():
        text = replace(text, name, body)
    page.write_text(text)
    if result.scenarios:
        drawn = [(one, result.scenarios.get(one.name, {})) for one in SCENARIOS]
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(plot.svg(drawn, result.names, OURS) + "\n")


def parts(result: Result) -> dict[str, str]:
    """The page's parts that the result has figures of."""
    found = {}
    if result.scenarios:
        tables = [
            report.scenario_table(one, result.scenarios[one.name], result.names)
            for one in SCENARIOS
            if one.name in result.scenarios
        ]
        found["machine"] = report.machine_text(result)
        found["targets"] = report.targets_table(result.scenarios)
        found["scenarios"] = "\n\n".join([IMAGE, *tables])
    if result.engine:
        found["engine"] = report.engine_table(result.engine)
    if result.streams:
        found["streams"] = report.streams_table(result.streams)
    if result.replicas:
        found["replicas"] = report.replicas_table(result.replicas)
    return found


def replace(page: str, name: str, body: str) -> str:
    """The page with another body between the marks ``<!-- measured: name -->`` and
    ``<!-- end -->``. Raises ``MarkMissing``."""
    pattern = rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)"
    text, count = re.subn(
        pattern, lambda found: f"{found[1]}\n{body}\n\n{found[2]}", page, count=1, flags=re.DOTALL
    )
    if not count:
        raise MarkMissing(f"the page has no place marked <!-- measured: {name} -->")
    return text
