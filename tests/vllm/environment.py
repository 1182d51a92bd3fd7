"""An environment with the real vLLM in it, made once."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements-vllm.txt")
PLACE = ROOT / ".cache" / "vllm"
# PyPI's builds of these are for another torch than the CPU's; transformers loads them where they
# are, and fails. vLLM does without.
UNFIT = ("torchvision", "torchaudio", "torchcodec")


def ensure_environment(place: Path = PLACE) -> Path:
    """The folder of the environment, which is made where it is not there (3.5 GB)."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + " ".join(UNFIT).encode()).hexdigest()
    stamp = place / "made"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(place, ignore_errors=True)
            _make(place)
            stamp.write_text(wanted)
    return place


def _make(place: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "-r", str(REQUIREMENTS)], check=True)
    subprocess.run([*pip, "uninstall", "--yes", *UNFIT], check=True)
