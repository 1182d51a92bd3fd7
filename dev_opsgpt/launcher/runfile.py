"""What a running service tells other commands of the same user: where its controller is, and the
secret that it made.

One file for each configuration folder, in a folder that only the user can enter, readable by the
user alone. It is locked while the service runs, so that it tells a running service from one that
was killed, and removed when the service ends.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

FOLDER = "opsgpt"
LOCK_ATTEMPTS = 5
LOCK_PAUSE = 0.05


class Running(msgspec.Struct):
    """One running service: the launcher's process id, its URLs (the gateway's without ``/v1``),
    the cluster's secret, and the folder that its processes share."""

    pid: int
    controller: str
    gateway: str | None
    secret: str
    run_dir: str = ""

    def __repr__(self) -> str:
        return f"Running(pid={self.pid}, controller={self.controller!r}, gateway={self.gateway!r})"


class AlreadyRunning(Exception):
    """The service of this configuration runs already; ``running`` tells which, if it can be
    read."""

    def __init__(self, running: Running | None) -> None:
        self.running = running
        where = "" if running is None else f" (process {running.pid}, {_where(running)})"
        super().__init__(
            f"The service of this configuration is running already{where}; stop that one first, "
            "or use another folder with --config."
        )


def run_file(config_dir: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the file of a configuration folder is; the folder it is in is made when missing.

    Raises ``OSError`` when there is nowhere to put it.
    """
    digest = hashlib.sha256(str(config_dir.resolve()).encode()).hexdigest()
    return _private_folder(environ) / f"{digest[:16]}.json"


def read(path: Path) -> Running | None:
    """The service that holds the file, or None when none runs."""
    try:
        with path.open("rb") as file:
            if _locked(file.fileno()):
                return msgspec.json.decode(file.read(), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None
    return None


@contextlib.contextmanager
def hold(path: Path, running: Running) -> Iterator[Callable[[Running], None]]:
    """Publishes a running service for as long as the context lasts, and gives what publishes it
    anew. Raises ``AlreadyRunning``."""
    descriptor = _lock(path)

    def publish(running: Running) -> None:
        # In one write, so that a reader finds either the one or the other.
        data = msgspec.json.encode(running).ljust(os.fstat(descriptor).st_size)
        os.pwrite(descriptor, data, 0)

    try:
        os.ftruncate(descriptor, 0)
        publish(running)
        yield publish
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path) -> int:
    for attempt in range(LOCK_ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            # A reader holds the lock for a moment only.
            time.sleep(LOCK_PAUSE * (attempt > 0))
            continue
        # The one before may have removed the file between our opening and our lock.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)
    raise AlreadyRunning(read(path))


def _locked(descriptor: int) -> bool:
    """Whether somebody else holds the file; a file without a holder was left by a kill."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _private_folder(environ: Mapping[str, str]) -> Path:
    candidates = []
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(runtime) / FOLDER)
    if home := environ.get("HOME"):
        cache = environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
        candidates.append(Path(cache) / FOLDER / "run")
    candidates.append(Path(tempfile.gettempdir()) / f"{FOLDER}-{os.getuid()}")
    for folder in candidates:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if _is_private(folder):
                return folder
    raise OSError(f"no private folder can be made in any of: {', '.join(map(str, candidates))}")


def _is_private(folder: Path) -> bool:
    """Whether a folder is the user's own and nobody else's; another's could be a trap."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return False
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
    return os.access(folder, os.W_OK)


def _where(running: Running) -> str:
    return f"{running.gateway}/v1" if running.gateway else running.controller
