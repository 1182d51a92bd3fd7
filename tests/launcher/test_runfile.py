import os
import stat
from pathlib import Path

import pytest

from dev_opsgpt.launcher.runfile import AlreadyRunning, Running, hold, read, run_file

RUNNING = Running(os.getpid(), "http://127.0.0.1:20001", "http://127.0.0.1:8888", "hush")


def test_lives_as_long_as_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read(path) is None
    with hold(path, RUNNING):
        assert read(path) == RUNNING
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_second_holder_is_told_who_is_first(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with hold(path, RUNNING), pytest.raises(AlreadyRunning) as caught, hold(path, RUNNING):
        pass
    assert f"process {os.getpid()}, http://127.0.0.1:8888/v1" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_file_that_was_left_behind_is_no_service(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"pid": 1, "controller": "c", "gateway": null, "secret": "s"}')
    assert read(path) is None
    with hold(path, RUNNING):
        assert read(path) == RUNNING


def test_broken_file_is_no_service(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with hold(path, RUNNING):
        path.write_bytes(b"{")
        assert read(path) is None


def test_secret_is_not_shown() -> None:
    assert "hush" not in repr(RUNNING)


def test_one_file_for_each_configuration(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    first, second = run_file(tmp_path / "a", environ), run_file(tmp_path / "b", environ)
    assert first != second
    assert first == run_file(tmp_path / "x" / ".." / "a", environ)
    assert first.parent == tmp_path / "opsgpt"


def test_folder_is_private(tmp_path: Path) -> None:
    (tmp_path / "opsgpt").mkdir(mode=0o777)
    folder = run_file(tmp_path / "a", {"XDG_RUNTIME_DIR": str(tmp_path)}).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_next_best_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "opsgpt").symlink_to(tmp_path)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path / "home")}
    folder = run_file(tmp_path / "a", environ).parent
    assert folder == tmp_path / "home" / ".cache" / "opsgpt" / "run"


def test_what_is_published_anew_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with hold(path, RUNNING) as publish:
        for gateway in ("http://127.0.0.1:1", "http://127.0.0.1:88888", None):
            moved = Running(1, "c", gateway, "s", "/a/b")
            publish(moved)
            assert read(path) == moved
