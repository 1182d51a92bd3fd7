"""The dashboard asks for names and labels that ``/metrics`` exports, and leaves nothing out."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dev_opsgpt.gateway.exposition import expose
from dev_opsgpt.gateway.metric_names import FAMILIES, PROCESS_FAMILIES
from dev_opsgpt.gateway.snapshot import Counts, Snapshot

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "examples" / "grafana" / "opsgpt.json").read_text())
# What a dashboard can do without: it is there for those who look for it.
UNSHOWN = {"process_virtual_memory_bytes", "process_start_time_seconds"}
# Prometheus gives every sample these.
SCRAPED = {"job", "instance"}

TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")|(?P<range>\[[^\]]*\])|(?P<name>[a-zA-Z_:][\w:]*)'
    r"|(?P<number>\d+(?:\.\d+)?)|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>={}(),])|(?P<space>\s+)"
)
FUNCTIONS = {"sum", "max", "min", "count", "rate", "increase", "histogram_quantile", "vector"}
GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"or", "and", "unless"}


def tokens(expression: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    while at < len(expression):
        token = TOKEN.match(expression, at)
        assert token is not None, f"what is {expression[at:]!r}?"
        at = token.end()
        if token.lastgroup != "space":
            found.append((str(token.lastgroup), token[0]))
    return found


class Expression:
    """What a PromQL expression names: ``metrics``, each with the labels it is matched by, and the
    labels that results are ``grouped`` by."""

    def __init__(self, text: str) -> None:
        self.metrics: dict[str, set[str]] = {}
        self.grouped: set[str] = set()
        self._tokens = tokens(text)
        depth = 0
        while self._tokens:
            kind, token = self._tokens.pop(0)
            depth += {"(": 1, ")": -1}.get(token, 0)
            if kind != "name" or token in OPERATORS:
                continue
            if token in GROUPINGS:
                self._expect("(")
                self.grouped |= self._until(")")
            elif token in FUNCTIONS:
                assert self._tokens[0][1] in ("(", "by"), f"{token} is a function"
            else:
                labels = self.metrics.setdefault(token, set())
                if self._tokens and self._tokens[0][1] == "{":
                    self._tokens.pop(0)
                    labels |= self._until("}")
        assert depth == 0, f"{text}: brackets"

    def _expect(self, sign: str) -> None:
        assert self._tokens.pop(0)[1] == sign

    def _until(self, end: str) -> set[str]:
        names = set()
        while (found := self._tokens.pop(0))[1] != end:
            if found[0] == "name":
                names.add(found[1])
        return names


def exported() -> dict[str, set[str]]:
    """The samples on a page that has one of everything, with their labels."""
    snapshot = Snapshot(process={"0": dict.fromkeys(PROCESS_FAMILIES, 1.0)})
    for family in FAMILIES.values():
        labels = tuple("x" for _ in family.labels)
        if family.kind == "histogram":
            counts = Counts([1] * (len(family.bounds) + 1), 1.0)
            snapshot.histograms[family.name] = {labels: counts}
        else:
            series = snapshot.counters if family.kind == "counter" else snapshot.gauges
            series[family.name] = {labels: 1.0}
    text = expose(snapshot)[0].decode()
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
    found: dict[str, set[str]] = {}
    for sample in samples:
        found.setdefault(sample.name, set()).update(sample.labels)
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target


EXPORTED = exported()
each_target = pytest.mark.parametrize(
    ("title", "target"), list(targets()), ids=lambda value: value if isinstance(value, str) else ""
)


@each_target
def test_names_and_labels_are_exported(title: str, target: dict[str, Any]) -> None:
    found = Expression(target["expr"])
    assert found.metrics
    known = set(SCRAPED)
    for name, labels in found.metrics.items():
        assert name in EXPORTED, f"{title}: {name} is not exported"
        known |= EXPORTED[name]
        wrong = labels - EXPORTED[name] - SCRAPED
        assert not wrong, f"{title}: {name} has no {wrong}"
    assert found.grouped <= known, f"{title}: nothing has {found.grouped - known}"
    shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert shown <= (found.grouped or known), f"{title}: the legend has {shown}"


@each_target
def test_counters_are_read_as_rates(title: str, target: dict[str, Any]) -> None:
    expression = target["expr"]
    for name in Expression(expression).metrics:
        of_counts = name.endswith(("_total", "_bucket", "_sum", "_count"))
        rated = re.search(rf"(rate|increase)\({name}(\{{[^}}]*\}})?\[", expression)
        assert of_counts == bool(rated), f"{title}: {expression}"


def test_nothing_that_is_exported_is_left_out() -> None:
    asked = {name for _, t in targets() for name in Expression(t["expr"]).metrics}
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    assert families == (FAMILIES | PROCESS_FAMILIES).keys() - UNSHOWN


def test_the_file_is_one_that_grafana_takes() -> None:
    assert DASHBOARD["id"] is None, "an id is another server's"
    assert DASHBOARD["schemaVersion"] >= 39
    assert re.fullmatch(r"[a-z0-9-]{1,40}", DASHBOARD["uid"])
    variables = {entry["name"]: entry for entry in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["model"]["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    query = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables["model"]["definition"])
    assert query is not None
    assert query[2] in EXPORTED[query[1]]

    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables.keys()


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= 24
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)


@pytest.mark.parametrize(
    ("text", "metrics", "grouped"),
    [
        ('sum by (a, b) (rate(x_total{c=~"$m", d!=""}[5m]))', {"x_total": {"c", "d"}}, {"a", "b"}),
        ("(count(x == 1) or vector(0)) / count(y)", {"x": set(), "y": set()}, set()),
        ('rate(x{a="}) by (z)"}[$__rate_interval]) * 2.5', {"x": {"a"}}, set()),
    ],
)
def test_expressions_are_read(text: str, metrics: dict[str, set[str]], grouped: set[str]) -> None:
    found = Expression(text)
    assert (found.metrics, found.grouped) == (metrics, grouped)


def test_the_scrape_configuration() -> None:
    found = yaml.safe_load((ROOT / "examples" / "prometheus.yml").read_text())
    (job,) = found["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8888"]}]
