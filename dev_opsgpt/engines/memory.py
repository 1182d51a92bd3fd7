"""How much memory this process may still take."""

from pathlib import Path


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still use: the system's, or less where a control group bounds
    it. None where the system does not tell (not Linux)."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        group = root / "sys/fs/cgroup"
        bound = int((group / "memory.max").read_text())
        reclaimable = 0
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                reclaimable = int(line.split()[1])
        used = int((group / "memory.current").read_text()) - reclaimable
    except (OSError, ValueError):  # no control group, or "max"
        return free
    return min(free, max(0, bound - used))
