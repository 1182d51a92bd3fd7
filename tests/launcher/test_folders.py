import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dev_opsgpt.config import Settings, load_settings
from dev_opsgpt.launcher.folders import (
    Unwritable,
    data_folder,
    log_folder,
    refused,
    run_folder,
)
from tests.launcher.stack import ROOT, Place

HOLD = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from dev_opsgpt.launcher.folders import run_folder
with run_folder(Path({data!r}), "killed:1") as folder:
    (folder / "shared").write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_folders_lie_beside_the_configuration(tmp_path: Path) -> None:
    place = Place(tmp_path, LOG_DIR="my-logs", DATA_DIR="my-data")
    found = load_settings(place.folder, {})
    assert log_folder(found) == tmp_path / "my-logs"
    assert data_folder(found) == tmp_path / "my-data"
    named = {"OPSGPT__LOG_DIR": "/a/b", "OPSGPT__DATA_DIR": "~/c"}
    found = load_settings(place.folder, named)
    assert (log_folder(found), data_folder(found)) == (Path("/a/b"), Path.home() / "c")
    assert (log_folder(Settings()), data_folder(Settings())) == (Path("logs"), Path("data"))


def test_run_folder_is_private_and_lives_as_long_as_it_is_held(tmp_path: Path) -> None:
    with run_folder(tmp_path / "data", "host:1") as first:
        assert stat.S_IMODE(first.stat().st_mode) == 0o700
        assert first.is_absolute()
        (first / "sub").mkdir()
        with run_folder(tmp_path / "data", "host:1") as second:
            assert second != first
            assert first.exists()
        assert not second.exists()
    assert not first.exists()


def test_what_a_killed_launcher_has_left_is_removed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    text = HOLD.format(root=str(ROOT), data=str(data))
    done = subprocess.run([sys.executable, "-c", text], env=dict(os.environ))
    assert done.returncode < 0
    (left,) = (data / "run").iterdir()
    (data / "run" / "somebody's").mkdir()
    with run_folder(data, "host:1") as folder:
        assert not left.exists()
        names = {path.name for path in (data / "run").iterdir()}
        assert names == {folder.name, "somebody's"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "new" / "logs") is None
    assert list((tmp_path / "new" / "logs").iterdir()) == []
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file") == "File exists"
    line = f"DATA_DIR: {tmp_path / 'file'} cannot be written: Not a directory"
    with pytest.raises(Unwritable, match=line), run_folder(tmp_path / "file", "host:1"):
        pass
