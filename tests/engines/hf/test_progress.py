import logging

import pytest

from dev_opsgpt.engines.hf.progress import EVERY, logged


def test_only_what_takes_a_while_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    times = iter([0, 1, EVERY, EVERY + 1, 2 * EVERY, 2 * EVERY])
    tell = logged("m", lambda: float(next(times)))
    for done in (0.0, 0.1, 0.25, 0.3, 0.5):
        tell("unpacking", done)
    tell("rounding", 0.0)
    assert [record.message for record in caplog.records] == [
        "m: unpacking, 25 %",
        "m: unpacking, 50 %",
    ]
