"""The service's own folders: where its logs lie, what it keeps, and what lives as long as it."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from dev_opsgpt.config import Settings

RUN = "run"
LOCK = "lock"


class Unwritable(Exception):
    """A folder that the service needs cannot be written; the message is one clear line."""


def log_folder(settings: Settings) -> Path:
    """``LOG_DIR``; a relative one lies beside the configuration folder."""
    return beside(settings, settings.log_dir)


def data_folder(settings: Settings) -> Path:
    """``DATA_DIR``; a relative one lies beside the configuration folder."""
    return beside(settings, settings.data_dir)


@contextlib.contextmanager
def run_folder(data: Path, launcher: str) -> Iterator[Path]:
    """A new folder under ``data`` that only the user can enter, for what the processes of one
    launcher share while they live. It is removed at the end, and so are those that launchers
    which were killed have left. Raises ``Unwritable`` where there can be none."""
    try:
        parent = data / RUN
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.iterdir():
            _remove_unheld(left)
        folder = Path(tempfile.mkdtemp(prefix=f"{quote(launcher, safe='.+@')}-", dir=parent))
        # The kernel lets go of it however this process ends.
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unwritable(f"DATA_DIR: {data} cannot be written: {_reason(error)}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder.resolve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def refused(folder: Path) -> str | None:
    """Why nothing can be written into a folder, which is made where it is missing; None where
    something can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except OSError as error:
        return _reason(error)
    return None


def beside(settings: Settings, name: str) -> Path:
    """A path of the configuration; a relative one lies beside the configuration folder."""
    folder = Path(name).expanduser()
    config_dir = settings.origin.config_dir
    return folder if config_dir is None else config_dir.resolve().parent / folder


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _remove_unheld(folder: Path) -> None:
    """Removes the folder of a launcher that is gone. One without a lock is being made just now, or
    is none of ours."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
