"""The memory that this process and its children have now."""

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(proc: Path = Path("/proc"), pid: int | None = None) -> int | None:
    """Bytes in memory (RSS, with what is mapped of files), of this process and all that it has
    started; None where the system does not tell (not Linux)."""
    own = os.getpid() if pid is None else pid
    total = None
    waiting = [own]
    while waiting:
        one = proc / str(waiting.pop())
        try:
            pages = int((one / "statm").read_text().split()[1])
            for thread in (one / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except (OSError, IndexError, ValueError):
            # It has ended in between, or there is nothing to read.
            continue
        total = (total or 0) + pages * _PAGE
    return total
