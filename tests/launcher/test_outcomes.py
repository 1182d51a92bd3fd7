from pathlib import Path

import pytest

from dev_opsgpt.launcher.outcomes import Journal, Line, Outcome


def test_what_is_written_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(OSError, match="reloads"):
        journal.read()
    journal.write(())
    assert journal.read() == ()
    outcomes = (
        Outcome(1, 0, 2.5, "applied", (Line("a"), Line("b", ok=False))),
        Outcome(2, 1, 3.5, "nothing"),
    )
    journal.write(outcomes)
    assert journal.read() == outcomes
    assert [path.name for path in tmp_path.iterdir()] == ["reloads.json"]


def test_what_counts_as_well() -> None:
    assert Outcome(1, 0, 0.0, "nothing").ok
    assert Outcome(1, 0, 0.0, "applied", (Line("a"),)).ok
    assert not Outcome(1, 0, 0.0, "applied", (Line("a"), Line("b", ok=False))).ok
    assert not Outcome(1, 0, 0.0, "refused").ok
