import json

import pytest

pytest.importorskip("torch")

from benchmarks.engines.gpu_check import main


def test_on_a_cpu_all_cases_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--small"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == 10
    assert all(case["apart"] <= case["tolerance"] for case in told)
