from pathlib import Path

from dev_opsgpt.launcher.logs import TAIL_LINES, LogFile, log_name


def test_names_are_safe_and_stay_apart() -> None:
    assert log_name("online models") == "online-models.log"
    assert log_name("THUDM/chatglm-6b (2)") == "THUDM%2Fchatglm-6b-(2).log"
    assert "/" not in log_name("../../etc/passwd")


def test_appends_and_keeps_the_last_lines(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "new" / "a.log")
    log.write(b"one\ntw")
    log.write(b"o\n\nthree")
    assert log.path.read_bytes() == b"one\ntwo\n\nthree"
    assert log.tail == ["one", "two", "three"]
    log.forget()
    assert log.tail == []


def test_tail_is_bounded(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    log.write(b"".join(b"%d\n" % number for number in range(100)))
    assert len(log.tail) == TAIL_LINES
    log.write(b"x" * 1_000_000)
    assert sum(map(len, log.tail)) < 10_000


def test_full_files_are_set_aside_and_the_oldest_dropped(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", max_bytes=10, kept=2)
    for number in range(5):
        log.write(b"line %d ....\n" % number)
    log.write(b"now\n")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {
        "a.log": "now\n",
        "a.log.1": "line 4 ....\n",
        "a.log.2": "line 3 ....\n",
    }


def test_disk_that_takes_nothing_costs_the_log_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    log = LogFile(tmp_path / "file" / "a.log")
    log.write(b"still here\n")
    assert log.tail == ["still here"]
