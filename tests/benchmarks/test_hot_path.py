"""The hot path without sockets, measured for a moment: every layer is answered."""

import subprocess
import sys

from benchmarks import hot_path


def test_every_layer_is_measured() -> None:
    argv = [sys.executable, "-m", "benchmarks.hot_path", "--turns", "1", "--rounds", "1"]
    told = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert all(text in told.stdout for text in hot_path.LAYERS.values())
    assert not told.stderr
