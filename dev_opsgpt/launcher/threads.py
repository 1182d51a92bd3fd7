"""How the engines of one machine share its cores, so that they do not fight over them.

Engines wait for their threads in busy loops. Two that each take all cores are together far slower
than two that take half each.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

from dev_opsgpt.config import WorkerSettings

SHARE = "OPSGPT_ENGINE_THREADS"
"""The variable in which the launcher tells an engine's process how many threads are its own."""


def cores_here(root: Path = Path("/")) -> int:
    """Cores that this process may use: those it is bound to, or fewer where a control group gives
    it less of their time."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or "max"
        return cores


def share_cores(engines: Mapping[str, WorkerSettings], cores: int) -> dict[str, int]:
    """Threads for each replica of the models that this machine runs; both by the model's name.

    What ``n_threads`` says is given as it is. The cores that are left are dealt out evenly to the
    others, each replica getting at least one.
    """
    taken = sum((worker.n_threads or 0) * worker.replicas for worker in engines.values())
    others = sum(worker.replicas for worker in engines.values() if worker.n_threads is None)
    each = max(1, (cores - taken) // max(1, others))
    return {name: worker.n_threads or each for name, worker in engines.items()}


def thread_environment(threads: int) -> dict[str, str]:
    """What is set for an engine's process. PyTorch and most libraries that compute read
    ``OMP_NUM_THREADS``."""
    return {SHARE: str(threads), "OMP_NUM_THREADS": str(threads)}


def own_share(environ: Mapping[str, str]) -> int | None:
    """The threads that this process was given; None for one that no launcher started."""
    share = environ.get(SHARE, "")
    return int(share) if share.isdecimal() and int(share) > 0 else None
