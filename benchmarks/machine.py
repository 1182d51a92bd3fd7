"""What a run was made on, in words."""

import os
import platform
from pathlib import Path


def facts() -> dict[str, str]:
    """Processor, cores, memory, Linux, Python; and the load before the run, which should be
    little."""
    return {
        "processor": processor(_read("/proc/cpuinfo")),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_bytes(_read('/proc/meminfo')) / 2**30:.0f} GiB",
        "Linux": ".".join(platform.release().split(".")[:2]),
        "Python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def processor(cpuinfo: str) -> str:
    """The model name in /proc/cpuinfo, else the architecture."""
    return _field(cpuinfo, "model name") or platform.machine()


def memory_bytes(meminfo: str) -> int:
    """All memory by /proc/meminfo, 0 where it does not say."""
    kibibytes = _field(meminfo, "MemTotal").removesuffix("kB").strip()
    return int(kibibytes) * 1024 if kibibytes else 0


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
