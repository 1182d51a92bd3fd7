"""``python -m tests.halves``: all tests, in two processes at once.

Most tests wait, for processes to start and for time-outs to pass; one after the other they leave
more than half of two cores idle. Each half has what its tests share to itself: the environments
with FastChat in them, the network namespaces, the small model's engines.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What takes the first half of the time, most of it engines and services that start and end; the
# other half is everything else.
FIRST = ("tests/chaos", "tests/compat", "tests/conformance", "tests/engines", "tests/launcher")
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def main() -> int:
    """Gives the worse of both exit codes. What the second half says follows what the first does."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as said:
        others = [*PYTEST, *(f"--ignore={folder}" for folder in FIRST)]
        second = subprocess.Popen(others, cwd=ROOT, stdout=said, stderr=said)
        try:
            first = subprocess.run([*PYTEST, *FIRST], cwd=ROOT, check=False).returncode
        finally:
            code = second.wait()
            said.seek(0)
            print(f"\nthe other half:\n{said.read().decode(errors='replace')}")
    print(f"Both took {(time.monotonic() - begun) / 60:.1f} minutes.")
    return max(first, code)


if __name__ == "__main__":
    sys.exit(main())
