"""The names, and the documentation's table of them."""

import re
from pathlib import Path

from dev_opsgpt.gateway.metric_names import FAMILIES, PREFIX, PROCESS_FAMILIES, Family
from dev_opsgpt.gateway.metrics import EVENTS, REQUESTS
from dev_opsgpt.gateway.model_figures import TIMES, TOTALS

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ?(.*?) ?\| (.*) \|$", re.MULTILINE)


def test_the_documentations_table_is_the_names() -> None:
    rows = [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text in ROW.findall(PAGE.read_text())
    ]
    known = (FAMILIES | PROCESS_FAMILIES).values()
    assert rows == [(f.name, f.kind, f.labels, f.help) for f in known]


def good(family: Family) -> bool:
    """As Prometheus's guide to naming has it."""
    name = family.name
    if (family.kind == "counter") != name.endswith("_total"):
        return False
    if family.kind == "histogram" and not name.endswith("_seconds"):
        return False
    return bool(re.fullmatch("[a-z][a-z_]*", name))


def test_names_are_as_they_should_be() -> None:
    for name, family in FAMILIES.items():
        assert name == family.name
        assert name.startswith(PREFIX)
    for family in (FAMILIES | PROCESS_FAMILIES).values():
        assert good(family), family.name
        assert family.help.endswith(".")


def test_what_is_counted_has_a_name() -> None:
    assert {REQUESTS, *EVENTS, *TOTALS, *TIMES} <= FAMILIES.keys()
    assert TIMES.keys() == {name for name, f in FAMILIES.items() if f.kind == "histogram"}
