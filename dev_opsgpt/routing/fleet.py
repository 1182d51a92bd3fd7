"""A gateway's view of the workers: the controller's table, and what the gateway itself knows of
each replica: its own requests in flight there, and whether it answered lately. Pure."""

from collections.abc import Collection, Iterable, Mapping
from math import inf

from dev_opsgpt.routing.breaker import Breaker, BreakerOptions
from dev_opsgpt.routing.table import Kind, Worker

# A replica that refused a connection is passed over for so long, unless it is heard of before.
DOWN_FOR = 5.0
# A model whose last replica died is "unavailable" for so long, and "unknown" after it.
REMEMBERED = 600.0
# A controller that was away has forgotten its workers. So long they have to register again: our own
# beat every 2 s, FastChat's every 45 s, and attached servers are asked as soon as it is back.
DOUBTED_FOR: Mapping[Kind, float] = {"opsgpt": 7.0, "openai": 15.0, "fastchat": 90.0}
# Weight of the newest time to the first byte in the moving average.
_NEWEST = 0.2
_BREAKER = BreakerOptions()


class Replica:
    """One worker as the gateway sees it; a ``Candidate`` for the dispatch policies.

    ``breaker`` is open while requests to it fail. ``first_token`` is the moving average of the
    seconds to the first byte of its answers, None before the first.
    """

    __slots__ = (
        "_others",
        "address",
        "breaker",
        "capacity",
        "doubted_since",
        "down_until",
        "first_token",
        "in_flight",
        "limit",
        "row",
        "speed",
        "waiting",
    )

    def __init__(self, row: Worker, breaker: BreakerOptions = _BREAKER) -> None:
        self.row = row
        self.breaker = Breaker(breaker)
        self.first_token: float | None = None
        self.in_flight = 0
        self.down_until = 0.0
        self.doubted_since: float | None = None
        self.address = row.address
        # The gateway does not see a worker's queue: all of it counts as running.
        self.waiting = 0
        self._take(row)

    @property
    def running(self) -> int:
        """Requests there now: this gateway's own, and those of others by its last report."""
        return self.in_flight + self._others

    @property
    def queue_length(self) -> int:
        """The same as FastChat's policies call it."""
        return self.running

    def update(self, row: Worker) -> None:
        """Takes a newer row: what it reports beyond our own requests is others' load, and a new
        beat is a sign of life."""
        if row.beats != self.row.beats:
            self.down_until = 0.0
        self.doubted_since = None
        self._take(row)

    def _take(self, row: Worker) -> None:
        self.row = row
        self.speed = row.speed
        self.limit = row.limit
        self.capacity = _capacity(row)
        self._others = max(0, row.queue_length - self.in_flight)

    def answered_after(self, seconds: float) -> None:
        """Takes the time to the first byte of one more answer."""
        known = self.first_token
        self.first_token = seconds if known is None else known + _NEWEST * (seconds - known)


def _capacity(row: Worker) -> float:
    """How many requests this gateway sends there at once; more wait for their turn here, where
    the important ones can be let past. A few beyond the limit keep the worker from idling between
    two. An attached server may take any number where nobody said how many it runs."""
    if row.kind == "openai" and not row.limited:
        return inf
    return row.limit + max(1, row.limit // 2)


class Fleet:
    """The replicas by address and by model.

    ``declared`` names are models that the configuration starts: until their first replica is there
    they are unavailable, not unknown.
    """

    def __init__(self, declared: Collection[str] = (), breaker: BreakerOptions = _BREAKER) -> None:
        self._replicas: dict[str, Replica] = {}
        self._by_model: dict[str, list[Replica]] = {}
        self._ready: dict[str, tuple[list[Replica], float]] = {}
        self._declared = set(declared)
        self._lost: dict[str, float] = {}
        self._breaker = breaker

    def models(self) -> list[str]:
        """The names that can be asked for, sorted."""
        return sorted(self._by_model)

    def replicas(self) -> list[Replica]:
        """All of them."""
        return list(self._replicas.values())

    def of(self, model: str) -> list[Replica]:
        """All replicas of a model, whatever state they are in. Not to be changed by the caller."""
        return self._by_model.get(model, [])

    def expected(self, model: str, now: float) -> bool:
        """Whether a model that nobody serves now is draining, was there a while ago, or is to
        come."""
        if model in self._by_model or model in self._declared:
            return True
        return now - self._lost.get(model, -REMEMBERED) < REMEMBERED

    def declare(self, models: Collection[str]) -> None:
        """Takes the models that a changed configuration starts."""
        self._declared = set(models) - self._by_model.keys()

    def guard_by(self, breaker: BreakerOptions) -> None:
        """Takes another rule for the breakers, which all begin anew where it is one."""
        if breaker != self._breaker:
            self._breaker = breaker
            for replica in self._replicas.values():
                replica.breaker = Breaker(breaker)
            self._ready.clear()

    def ready(self, model: str, now: float) -> list[Replica]:
        """The replicas of a model that may take a request: not draining, breaker not open. Those
        that did not answer lately only where there is no other. Not to be changed by the caller:
        while all are well it is made once and kept."""
        kept = self._ready.get(model)
        if kept is not None and now < kept[1]:
            return kept[0]
        alive = [r for r in self._by_model.get(model, ()) if not r.row.draining]
        allowed = [r for r in alive if r.breaker.is_closed or r.breaker.allows(now)]
        ready = [r for r in allowed if r.down_until <= now] or allowed
        well = len(ready) == len(alive) and all(
            r.breaker.is_closed and r.down_until <= now for r in ready
        )
        if alive:
            # Time alone brings back who is down or on trial, so then it is looked at each time.
            self._ready[model] = (ready, inf if well else now)
        return ready

    def down(self, replica: Replica, now: float) -> None:
        """Notes that a replica did not answer."""
        replica.down_until = now + DOWN_FOR
        self._ready.clear()

    def taken(self, replica: Replica, now: float) -> None:
        """Notes that a request is sent to a replica; to one on trial no second one is."""
        replica.in_flight += 1
        if not replica.breaker.is_closed:
            replica.breaker.taken(now)
            self._ready.clear()

    def succeeded(self, replica: Replica, now: float) -> None:
        """Notes that a replica answered as it should."""
        breaker = replica.breaker
        closed = breaker.is_closed
        breaker.succeeded(now)
        if not closed:
            self._ready.clear()

    def failed(self, replica: Replica, now: float) -> None:
        """Notes that a replica failed a request, by a fault of its own."""
        replica.breaker.failed(now)
        self._ready.clear()

    def replace(self, rows: Iterable[Worker], now: float) -> list[Replica]:
        """Takes a whole table; gives the replicas that are in it no more."""
        found = {row.address: row for row in rows}
        gone = [address for address in self._replicas if address not in found]
        removed = self.remove(gone, now)
        self.upsert(found.values())
        return removed

    def resume(self, rows: Collection[Worker], now: float) -> None:
        """Takes the table of a controller that was away, and may have forgotten its workers: who
        is not in it stays, until ``expire`` finds that it did not register again."""
        found = {row.address for row in rows}
        for address, replica in self._replicas.items():
            if address not in found and replica.doubted_since is None:
                replica.doubted_since = now
        self.upsert(rows)

    def expire(self, now: float) -> list[Replica]:
        """Forgets the replicas that a controller has not heard of for too long, and gives them."""
        late = [
            address
            for address, replica in self._replicas.items()
            if replica.doubted_since is not None
            and now - replica.doubted_since > DOUBTED_FOR[replica.row.kind]
        ]
        return self.remove(late, now)

    def upsert(self, rows: Iterable[Worker]) -> None:
        """Takes new and changed rows."""
        moved = False
        self._ready.clear()
        for row in rows:
            known = self._replicas.get(row.address)
            if known is None:
                self._replicas[row.address] = Replica(row, self._breaker)
                moved = True
            else:
                moved = moved or known.row.models != row.models
                known.update(row)
        if moved:
            self._index()

    def remove(self, addresses: Iterable[str], now: float, *, lost: bool = True) -> list[Replica]:
        """Forgets replicas and gives them. ``lost`` ones are expected to come back."""
        gone = [r for r in (self._replicas.pop(a, None) for a in addresses) if r is not None]
        if gone:
            if lost:
                self._lost |= {model: now for replica in gone for model in replica.row.models}
            self._index()
        return gone

    def _index(self) -> None:
        by_model: dict[str, list[Replica]] = {}
        for replica in self._replicas.values():
            for model in replica.row.models:
                by_model.setdefault(model, []).append(replica)
        self._by_model = by_model
        self._ready.clear()
        # From now on a model is missed because it died, or gone because it was taken away.
        self._declared -= by_model.keys()
        self._lost = {model: at for model, at in self._lost.items() if model not in by_model}
