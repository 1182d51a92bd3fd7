"""Virtual environments for other people's routers: made on first use, each with its own packages
at fixed versions, so that they meet neither ours nor each other's."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.processes import StartFailed

VENVS = Path(__file__).parents[1] / ".cache" / "benchmarks" / "venvs"
REQUIREMENTS = Path(__file__).parent / "contenders"


class Environment:
    """The packages of one requirements file. Every package that is needed is listed there: they
    are installed with ``--no-deps``, so that nothing large comes along unnoticed."""

    def __init__(self, name: str, requirements: Path | None = None) -> None:
        self._root = VENVS / name
        self._requirements = requirements or REQUIREMENTS / f"requirements-{name}.txt"

    def ensure(self) -> None:
        """Makes it where it is not there yet, or was made of other requirements.
        Raises ``StartFailed`` with pip's last words."""
        stamp = self._root / "made-of"
        wanted = hashlib.sha256(sys.version.encode() + self._requirements.read_bytes()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--without-pip", str(self._root)])
        pip = [sys.executable, "-m", "pip", "--python", self.program("python"), "install"]
        # Unpacking alone takes half the time; what is imported is compiled then.
        options = ["--quiet", "--no-input", "--no-deps", "--no-compile", "--only-binary", ":all:"]
        _run([*pip, *options, "-r", str(self._requirements)])
        stamp.write_text(wanted)

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self._root / "bin" / name)

    def version(self, package: str) -> str:
        """The version that the requirements fix. Raises ``ValueError`` for an unknown package."""
        for line in self._requirements.read_text().splitlines():
            name, _, version = line.partition("==")
            if name.strip().lower() == package:
                return version.strip()
        raise ValueError(f"{self._requirements.name} does not fix {package}")


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartFailed(f"{' '.join(argv)} failed:\n{(done.stderr or done.stdout)[-2000:]}")
