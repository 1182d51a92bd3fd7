"""The parts of the benchmarks that only calculate."""

from pathlib import Path

import httptools
import pytest

from benchmarks import dataplane, mock, report, upstream
from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.dataplane import Figures
from benchmarks.engine import TokenFigures
from benchmarks.load import Load, LoadFailed, parse_wrk, percentile
from benchmarks.processes import cpu_seconds, parse_stat
from dev_opsgpt.protocol.openai import ChatRequest
from dev_opsgpt.protocol.parse import parse
from dev_opsgpt.protocol.sse import Decoder


def test_a_process_whose_name_has_spaces_and_parentheses() -> None:
    rest = "S 7 1 1 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 100 1000 10"
    assert parse_stat(f"42 (a (b) c) {rest}") == (7, 42)


def test_an_unknown_process_costs_nothing() -> None:
    assert cpu_seconds([2**30]) == 0


def test_wrk_s_figures() -> None:
    line = '{"requests":5,"seconds":2.0,"p50":1.5,"p99":9.0,"failed":1}'
    assert parse_wrk(f"Running 1s test\n\nFIGURES {line}\n") == Load(5, 2.0, 1.5, 9.0, 1)


@pytest.mark.parametrize(
    "out", ["", 'FIGURES {"requests":0,"seconds":1,"p50":0,"p99":0,"failed":9}']
)
def test_a_load_that_nobody_answered(out: str) -> None:
    with pytest.raises(LoadFailed, match="refused"):
        parse_wrk(out, "connection refused")


@pytest.mark.parametrize(("percent", "value"), [(50, 50.0), (99, 99.0), (100, 100.0), (0, 1.0)])
def test_percentiles(percent: int, value: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], percent) == value


def test_the_canned_answers() -> None:
    assert len(upstream.answer()) == upstream.ANSWER_BYTES
    events = mock.events(mock.BURST_CHUNKS)
    payloads = list(Decoder().feed(b"".join(events)))
    assert len(payloads) == mock.BURST_CHUNKS + 1
    assert payloads[-1] == b"[DONE]"


def test_a_frame_is_an_http_chunk() -> None:
    class Sink:
        body = b""

        def on_body(self, body: bytes) -> None:
            self.body += body

    sink = Sink()
    httptools.HttpResponseParser(sink).feed_data(
        mock.HEAD + mock.framed(b"data: x\n\n") + mock.LAST
    )
    assert sink.body == b"data: x\n\n"


def test_the_request_is_valid() -> None:
    from benchmarks.load import request_body

    assert parse(ChatRequest, request_body(stream=True)).stream is True


def test_the_median_of_the_rounds() -> None:
    rounds = [Figures(cpu, 10 * cpu, cpu, 2 * cpu, 100, 1) for cpu in (3.0, 1.0, 8.0)]
    assert dataplane.median(rounds) == Figures(3.0, 30.0, 3.0, 6.0, 300, 3)


def test_tables() -> None:
    figures = {
        "direct": Figures(0.0, 9e4, 0.2, 1.0, 9, 0),
        "nginx": Figures(0.01, 5e4, 0.4, 2.0, 9, 0),
    }
    figures["keyed"] = Figures(0.04, 2e4, 1.5, 5.0, 9, 0)
    names = {name: make().name for name, make in CONTENDERS.items()}
    table = report.scenario_table(dataplane.SCENARIOS[0], figures, names, BASELINE)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[4:]]
    assert [row[1:3] for row in rows] == [["–", "–"], ["0.010", "1.0"], ["0.040", "4.0"]]
    assert len({len(line) for line in table.splitlines()[2:]}) == 1
    assert "0.75" in report.engine_table([TokenFigures(1, 100.0, 75.0)])


def test_a_result_is_written(tmp_path: Path) -> None:
    path = report.write(report.new_result({}), tmp_path / "new")
    assert path.read_text().startswith("{")


def test_contenders_have_names_of_their_own() -> None:
    made = [make() for make in CONTENDERS.values()]
    assert BASELINE in CONTENDERS
    assert len({one.name for one in made}) == len(made)
    for one in made:
        assert not one.pids()
        one.stop()
