"""Notices that the files of a configuration have changed."""

from asyncio import sleep
from pathlib import Path

from dev_opsgpt.config.sources import OVERLAY_FILE

INTERVAL = 1.0
SETTLED = 0.3
"""Seconds in which nothing has changed, before a change is taken to be whole."""

Fingerprint = frozenset[tuple[str, int, int, int]]


def fingerprint(folder: Path) -> Fingerprint:
    """Something that differs when a file of the configuration does: the two that are run, what
    they may import from beside them, and the overlay. A folder that cannot be read has none."""
    try:
        paths = [*folder.glob("*.py"), folder / OVERLAY_FILE]
    except OSError:
        return frozenset()
    found = set()
    for path in paths:
        try:
            seen = path.stat()
        except OSError:
            continue
        found.add((path.name, seen.st_ino, seen.st_mtime_ns, seen.st_size))
    return frozenset(found)


async def changed(folder: Path, known: Fingerprint) -> None:
    """Returns when the files are other than ``known``, and have been the same for a moment."""
    before = known
    while True:
        seen = fingerprint(folder)
        if seen == before != known:
            return
        before = seen
        await sleep(INTERVAL if seen == known else SETTLED)
