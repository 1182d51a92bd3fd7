"""Tables, targets, the picture, and the page they are put into."""

import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import dataplane, machine, pages, plot, report, targets
from benchmarks.__main__ import main
from benchmarks.contenders import CONTENDERS
from benchmarks.dataplane import SCENARIOS, Figures
from benchmarks.engine import TokenFigures
from benchmarks.replicas import ReplicaFigures
from benchmarks.report import Result
from benchmarks.streams import StreamFigures

NAMES = {name: make().name for name, make in CONTENDERS.items()}
CPU = {
    "direct": 0.0,
    "nginx": 0.01,
    "everything": 0.03,
    "vllm-router": 0.05,
    "smg": 0.10,
    "litellm": 15.0,
}
cpus = st.floats(1e-4, 1e4)


def figures(cpu: float) -> Figures:
    return Figures(cpu, 1000.0, 1.0, 2.0, 0.5 + cpu, 10, 0)


def scenario() -> dict[str, Figures]:
    return {name: figures(cpu) for name, cpu in CPU.items()}


def full() -> Result:
    result = report.new_result(NAMES, {"nginx": "1.22.1", "direct": ""}, {"rounds": 2})
    result.scenarios = {one.name: scenario() for one in SCENARIOS}
    result.idle = {"A": 1.25}
    result.engine = [TokenFigures(1, 100.0, 75.0)]
    result.streams = [StreamFigures(1, 5000, 0, 17.25, 1.5, 3.0)]
    result.replicas = [ReplicaFigures(1000, 3.0, 1.5, 50.0, 70.0, 0.5, 8.0, 1000, 3, 19, 0)]
    return result


def cells(table: str) -> list[list[str]]:
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len({len(line) for line in rows}) == 1
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows]


def test_the_median_of_the_rounds() -> None:
    rounds = [Figures(cpu, 10 * cpu, cpu, 2 * cpu, cpu, 100, 1) for cpu in (3.0, 1.0, 8.0)]
    assert dataplane.median(rounds) == Figures(3.0, 30.0, 3.0, 6.0, 3.0, 300, 3)


def test_ratios_are_to_each_rival() -> None:
    head, _, *rows = cells(report.scenario_table(SCENARIOS[0], scenario(), NAMES))
    assert head[1:5] == ["CPU ms/request", "× nginx", "× best Rust", "× LiteLLM"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name[NAMES["everything"]][:4] == ["0.030", "3.0", "0.6", "0.002"]
    assert by_name[NAMES["direct"]][:4] == ["–"] * 4
    assert by_name[NAMES["everything"]][7] == "0.03"


def test_a_table_without_rivals() -> None:
    found = cells(report.scenario_table(SCENARIOS[1], {"keyed": figures(0.05)}, NAMES))
    assert found[0][1:3] == ["CPU ms/request", "requests/s"]


@pytest.mark.parametrize(
    ("value", "text"), [(5616.2, "5,616"), (16.4, "16"), (1.44, "1.4"), (0.0049, "0.0049")]
)
def test_two_significant_digits(value: float, text: str) -> None:
    assert report.significant(value) == text


def test_targets_of_a_run() -> None:
    rows = cells(report.targets_table({"A": scenario()}))[2:]
    verdicts = {row[0]: row[1:] for row in rows}
    assert len(verdicts) == len(targets.TARGETS)
    assert verdicts["A × best Rust"] == ["0.7", "0.6", "yes"]
    assert verdicts["A × LiteLLM"] == ["0.01", "0.002", "yes"]
    assert verdicts["B × nginx"] == ["2", "–", "not measured"]


def test_a_target_that_is_missed_is_said() -> None:
    found = scenario() | {"everything": figures(0.041)}
    rows = {row[0]: row[1:] for row in cells(report.targets_table({"A": found}))}
    assert rows["A × nginx"] == ["4", "4.1", "no"]


@given(st.dictionaries(st.sampled_from(sorted(CONTENDERS)), cpus))
def test_the_best_rust_router_is_the_rival(cpu: dict[str, float]) -> None:
    found = targets.rivals({name: figures(spent) for name, spent in cpu.items()})
    rust = [cpu[name] for name in targets.RUST if name in cpu]
    assert found.get("rust") == min(rust, default=None)
    assert found.get("nginx") == cpu.get("nginx")


@given(st.lists(cpus, min_size=1, max_size=12))
def test_bars_are_in_the_order_of_their_values(values: list[float]) -> None:
    low, high = plot.decades(values)
    ends = [plot.place(value, low, high) for value in sorted(values)]
    assert ends == sorted(ends)
    assert all(plot.LABEL < end <= plot.WIDTH - plot.RIGHT + 0.01 for end in ends)


def test_the_picture_shows_every_bar_and_escapes_names() -> None:
    names = NAMES | {"nginx": "a < b & c"}
    drawn = [(one, scenario()) for one in SCENARIOS]
    picture = plot.svg(drawn, names, frozenset({"everything"}))
    root = ElementTree.fromstring(picture)
    shown = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert shown.count("a < b & c") == len(SCENARIOS)
    colours = [node.get("fill") for node in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert colours.count(plot.OURS) == len(SCENARIOS)
    assert len(colours) == 1 + len(SCENARIOS) * (len(CPU) - 1)


def test_a_picture_of_nothing() -> None:
    assert ElementTree.fromstring(plot.svg([(SCENARIOS[0], {})], NAMES, frozenset())).tag


def test_a_result_is_written_and_read(tmp_path: Path) -> None:
    result = full()
    path = report.write(result, tmp_path / "new")
    assert report.read(path) == result
    path.write_text("{}")
    with pytest.raises(msgspec.ValidationError):
        report.read(path)


def test_the_page_has_a_place_for_every_part(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "images" / "benchmarks.svg"
    page.write_text(pages.PAGE.read_text())
    pages.write(full(), page, picture)
    text = page.read_text()
    assert "this gateway, everything on" in text
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    marks = re.findall(r"<!-- measured: (\w+) -->", text)
    assert sorted(marks) == sorted(pages.parts(full()))
    before = text
    pages.write(full(), page, picture)
    assert page.read_text() == before


def test_what_was_not_measured_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured: engine -->\nold\n<!-- end -->\nz\n")
    pages.write(report.new_result({}, {}, {}), page, tmp_path / "x.svg")
    assert "old" in page.read_text()
    assert not (tmp_path / "x.svg").exists()
    with pytest.raises(pages.MarkMissing, match="machine"):
        pages.write(full(), page, tmp_path / "x.svg")


def test_who_was_left_out_is_said_without_the_log() -> None:
    result = full()
    result.left_out = {"smg in A": "a path of this machine"}
    text = report.machine_text(result)
    assert "smg in A" in text
    assert "1.2 % in A" in text
    assert "path" not in text


def test_our_version_is_told_once() -> None:
    ours = {"keyed": "0.1.0", "everything": "0.1.0", "nginx": "1.22.1", "direct": ""}
    text = report.machine_text(report.new_result(NAMES, ours, {}))
    assert "Versions: this gateway 0.1.0, nginx as a reverse proxy 1.22.1." in text


def test_a_file_that_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "x.json"
    wrong.write_text("{}")
    for path in (wrong, tmp_path / "missing.json"):
        assert main(["--read", str(path)]) == 1
        assert capsys.readouterr().err


def test_an_earlier_run_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = report.write(full(), tmp_path)
    assert main(["--read", str(path)]) == 0
    out = capsys.readouterr().out
    assert "A × best Rust" in out
    assert "5,000" in out


def test_the_machine_by_its_files() -> None:
    assert machine.processor("processor\t: 0\nmodel name\t: A chip\n") == "A chip"
    assert machine.processor("") != ""
    assert machine.memory_bytes("MemTotal:       1024 kB\n") == 1 << 20
    assert machine.memory_bytes("") == 0
    assert machine.facts()["cores"] != "0"
