"""The two programs that are not Python: nginx and wrk, as Debian packages them."""

import os
import shutil
import subprocess

PROGRAMS = ("nginx", "wrk")


class ToolMissing(Exception):
    """A program is not there and cannot be installed; the message says what to do."""


def ensure_tools() -> None:
    """Installs what is missing where that is possible. Raises ``ToolMissing``."""
    missing = [name for name in PROGRAMS if find(name) is None]
    if not missing:
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise ToolMissing(
            f"The benchmarks need {' and '.join(missing)}. "
            f"Install them, for instance: sudo apt-get install {' '.join(missing)}"
        )
    print(f"installing {' and '.join(missing)} ...", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = [apt, "install", "-y", "--no-install-recommends", *missing]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0 or any(find(name) is None for name in missing):
        raise ToolMissing(
            f"`apt-get install {' '.join(missing)}` failed; try `apt-get update` first.\n"
            f"{done.stderr.strip()[-500:]}"
        )


def find(name: str) -> str | None:
    """A program's path; Debian keeps servers where a user's PATH does not look."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def path_of(name: str) -> str:
    """The path of a program that ``ensure_tools`` has seen."""
    found = find(name)
    if found is None:
        raise ToolMissing(f"{name} is not installed.")
    return found


def nginx_version() -> str:
    """Such as "1.22.1"."""
    done = subprocess.run([path_of("nginx"), "-v"], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("/")[2]
