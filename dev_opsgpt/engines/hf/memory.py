"""How many tokens' state the free memory holds."""

from pathlib import Path

import torch

SHARES = {"cuda": 0.85}
SHARE_ELSEWHERE = 0.4
"""Of what is free: a card is for its model alone, a machine's memory is not."""


def tokens_that_fit(device: torch.device, bytes_per_token: int, *, most: int) -> int:
    """At most ``most``; that many, where nobody knows what a token takes."""
    if bytes_per_token == 0:
        return most
    share = SHARES.get(device.type, SHARE_ELSEWHERE)
    return min(most, int(share * free_bytes(device)) // bytes_per_token)


def free_bytes(device: torch.device) -> int:
    """Memory that the device, or this machine or container, has left."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds and does not use is free for us too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_machine(), _container())


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 62
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes["MemAvailable"].split()[0]) * 1024


def _container() -> int:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        cached = _inactive(folder / "memory.stat")
    except OSError:
        return 1 << 62
    return 1 << 62 if limit == "max" else max(0, int(limit) - used + cached)


def _inactive(stat: Path) -> int:
    """File pages that the kernel gives up when memory is asked for."""
    for line in stat.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0
