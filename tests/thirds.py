"""``python -m tests.thirds``: all tests, in three processes at once.

Most tests wait, for processes to start and for time-outs to pass; one after the other they leave
more than half of two cores idle. Each third has what its tests share to itself: the environments
with FastChat in them, the network namespaces, the small model's engines.
"""

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
# About as long as each other; the third is everything else.
FIRST = ("tests/engines", "tests/launcher")
SECOND = (
    *("tests/chaos", "tests/cluster", "tests/compat"),
    *("tests/conformance", "tests/controller", "tests/fuzz"),
)
THIRDS = (FIRST, SECOND, tuple(f"--ignore={folder}" for folder in FIRST + SECOND))
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def main() -> int:
    """Gives 1 where any of them failed. What the first third says is shown while it runs, what the
    others do after it."""
    begun = time.monotonic()
    first, *others = THIRDS
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in others]
        running = [
            subprocess.Popen([*PYTEST, *chosen], cwd=ROOT, stdout=output, stderr=output)
            for chosen, output in zip(others, outputs, strict=True)
        ]
        try:
            codes = [subprocess.run([*PYTEST, *first], cwd=ROOT, check=False).returncode]
        finally:
            codes += [process.wait() for process in running]
            for output in outputs:
                output.seek(0)
                print(f"\nanother third:\n{output.read().decode(errors='replace')}")
    print(f"All took {(time.monotonic() - begun) / 60:.1f} minutes.")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
