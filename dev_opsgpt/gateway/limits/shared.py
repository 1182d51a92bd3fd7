"""Limits of one machine: every gateway process counts in the same file."""

import time
from pathlib import Path

from dev_opsgpt.gateway.limits.counting import Clock, CountedLimits
from dev_opsgpt.gateway.limits.rows import MemoryTable
from dev_opsgpt.gateway.limits.shared_table import SharedTable


class SharedLimits(CountedLimits):
    """Counts in a file in ``folder``, best on a file system in memory; ``alone`` where this is the
    only process. Raises ``OSError`` where the folder cannot be used."""

    def __init__(
        self,
        folder: Path,
        *,
        alone: bool = False,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self._shared = SharedTable(folder, alone=alone)
        super().__init__(self._shared, clock=clock, wall=wall)

    def alone(self, alone: bool) -> None:
        """Another process has come, or the others have gone."""
        self._shared.alone = alone


class LocalLimits(CountedLimits):
    """Counts in this process's own memory."""

    def __init__(self, *, clock: Clock = time.monotonic, wall: Clock = time.time) -> None:
        super().__init__(MemoryTable(), clock=clock, wall=wall)
