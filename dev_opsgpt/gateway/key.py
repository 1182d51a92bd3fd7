"""A key as the gateway knows it: who holds it, what it may ask for, and how much."""

from msgspec import Struct

from dev_opsgpt.routing.limits import Period


class Key(Struct, frozen=True):
    """One key out of the database; never the key's own text.

    ``number`` is its row among the counters, the same in every process. ``models`` are those it may
    ask, None for all. Limits are None where there are none: ``rpm`` requests and ``tpm`` tokens a
    minute, ``concurrent`` requests at once, and ``budget`` in the price table's unit for each
    ``budget_period``. ``expires_at`` is Unix time.
    """

    id: str
    number: int
    name: str = ""
    owner: str = ""
    models: frozenset[str] | None = None
    priority: int = 0
    rpm: int | None = None
    tpm: int | None = None
    concurrent: int | None = None
    budget: float | None = None
    budget_period: Period = "total"
    expires_at: float | None = None

    @property
    def limited(self) -> bool:
        """Whether it has any limit."""
        return not (self.rpm is self.tpm is self.concurrent is self.budget is None)
