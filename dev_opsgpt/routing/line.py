"""Models that are wanted, and the order in which they come. Pure; ``now`` is monotonic seconds."""

from collections.abc import Iterable
from dataclasses import dataclass

from dev_opsgpt.routing.residents import Need

# A wish that nobody repeats is forgotten after so long, unless its load is under way.
WISH_LASTS = 30.0
WISH_BY_HAND_LASTS = 600.0
# Those who wait repeat a wish this often; one by hand nobody repeats.
REPEATED = 6.0
# Room is kept free for so long. Who has waited in vain until then lets those go first, once, who
# wait by that time: it may be that what it waits for never goes.
TURN_LASTS = 30.0


@dataclass
class Wish:
    """Somebody wants a model. ``turn`` is since when it has its place in the line, ``why`` why it
    is not being loaded."""

    renewed: float
    by_hand: bool
    turn: float
    why: str = ""

    def over(self, now: float) -> bool:
        """Whether nobody has repeated it for too long."""
        return now - self.renewed > (WISH_BY_HAND_LASTS if self.by_hand else WISH_LASTS)

    def holds(self, now: float) -> bool:
        """Whether room is kept free for it."""
        return now - self.renewed <= (TURN_LASTS if self.by_hand else REPEATED)


class Line:
    """Who comes first, by launcher: ``claims`` are kept for those for whom others leave already,
    ``waiting`` are those who wait until others can. ``first`` is the first of the latter."""

    def __init__(self) -> None:
        self.claims: dict[str, list[Need]] = {}
        self.waiting: dict[str, list[Need]] = {}
        self.first = ""

    def wait(self, model: str, launchers: Iterable[tuple[str, Need]]) -> None:
        """A model waits for room on any of these."""
        self.first = self.first or model
        for launcher, need in launchers:
            self.waiting.setdefault(launcher, []).append(need)
