"""Where the gateway's processes leave their figures for one another: one small file each."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dev_opsgpt.gateway.snapshot import LAYOUT, Snapshot

log = logging.getLogger(__name__)

_NAME = "metrics-"


class SnapshotFiles:
    """The files in ``folder``, which is made when it is first written to; this process's is
    ``metrics-<index>``. Blocking calls."""

    def __init__(self, folder: Path, index: int) -> None:
        self._folder = folder
        self._own = folder / f"{_NAME}{index}"

    def write(self, snapshot: Snapshot) -> None:
        """Replaces this process's file; readers find the old one or the new one, whole. Raises
        ``OSError``."""
        data = msgspec.msgpack.encode(snapshot)
        part = self._folder / f".{self._own.name}.{os.getpid()}"
        try:
            part.write_bytes(data)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
        part.replace(self._own)

    def own(self) -> Snapshot | None:
        """What this process, or the one that had its place before, has written last."""
        return _read(self._own)

    def others(self) -> list[Snapshot]:
        """What the other processes have written last."""
        return list(self._others())

    def _others(self) -> Iterator[Snapshot]:
        for path in sorted(self._folder.glob(f"{_NAME}*")):
            if path != self._own and (found := _read(path)) is not None:
                yield found


def _read(path: Path) -> Snapshot | None:
    try:
        found = msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, OSError) as error:
        log.warning("%s cannot be read: %s", path, error)
        return None
    # Left by another version of this program: what it counted, this one counts otherwise.
    return found if found.layout == LAYOUT else None
