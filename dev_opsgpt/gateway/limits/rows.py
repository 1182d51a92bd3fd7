"""The counters of one key, as cells in memory; the memory may be shared."""

from collections.abc import Iterable

from dev_opsgpt.routing.limits import CELLS, Window

CELL = 8
# Processes that may count at once: twice as many as a gateway has, since the old ones drain while
# the new ones start.
SLOTS = 128

# Where things are in a row, in cells.
PERIOD, SPENT, IN_FLIGHT = 0, 1, 8
REQUESTS = IN_FLIGHT + SLOTS
TOKENS = REQUESTS + CELLS
ROW_CELLS = 1344
ROW_BYTES = ROW_CELLS * CELL

_COUNT = (1 << 32) - 1


class Row:
    """One key's counters.

    Requests in flight have a cell for each process: the process's epoch in the upper half, the
    count in the lower. A count of another epoch is that of a process which is no more.
    """

    __slots__ = ("_money", "cells", "requests", "tokens")

    def __init__(self, memory: "memoryview[int]") -> None:
        self.cells = memory.cast("Q")
        self._money = memory[SPENT * CELL : (SPENT + 1) * CELL].cast("d")
        self.requests = Window(self.cells[REQUESTS : REQUESTS + CELLS])
        self.tokens = Window(self.cells[TOKENS : TOKENS + CELLS])

    def in_flight(self, epochs: "memoryview[int]", slots: int) -> int:
        """Requests in flight in all processes; ``epochs`` are theirs by slot."""
        cells = self.cells
        total = 0
        for slot in range(slots):
            value = cells[IN_FLIGHT + slot]
            if value and value >> 32 == epochs[slot]:
                total += value & _COUNT
        return total

    def counted_by(self, epochs: "memoryview[int]", slots: int) -> list[int]:
        """The slots whose processes have requests in flight."""
        found = self.cells[IN_FLIGHT : IN_FLIGHT + slots].tolist()
        return [i for i, value in enumerate(found) if value & _COUNT and value >> 32 == epochs[i]]

    def enter(self, slot: int, epoch: int) -> None:
        """One more request in flight in a process."""
        cells = self.cells
        value = cells[IN_FLIGHT + slot]
        cells[IN_FLIGHT + slot] = value + 1 if value >> 32 == epoch else (epoch << 32) + 1

    def leave(self, slot: int, epoch: int) -> None:
        """One less."""
        value = self.cells[IN_FLIGHT + slot]
        if value >> 32 == epoch and value & _COUNT:
            self.cells[IN_FLIGHT + slot] = value - 1

    def spent(self, period: int) -> float:
        """What was spent in this budget period."""
        return self._money[0] if self.cells[PERIOD] == period else 0.0

    def set_spent(self, period: int, amount: float) -> None:
        """Begins the period where it is new."""
        if self.cells[PERIOD] != period:
            # In this order: whoever is killed in between leaves a period that nobody asks for.
            self.cells[PERIOD] = 0
            self._money[0] = amount
            self.cells[PERIOD] = period
        else:
            self._money[0] = amount


class MemoryTable:
    """Rows of one process alone."""

    def __init__(self) -> None:
        self.slot = 0
        self.epoch = 1
        self.slots = 1
        self.epochs = memoryview(bytearray(CELL)).cast("Q")
        self.epochs[0] = 1
        self._rows: dict[int, Row] = {}

    def row(self, number: int) -> Row:
        """A key's row."""
        if number not in self._rows:
            self._rows[number] = Row(memoryview(bytearray(ROW_BYTES)))
        return self._rows[number]

    def acquire(self, number: int) -> None:
        """Nobody else is there."""

    def release(self, number: int) -> None:
        """Nobody else is there."""

    def bury(self, slots: Iterable[int]) -> None:
        """Forgets what processes that are no more had in flight."""

    def close(self) -> None:
        """Nothing is held."""
