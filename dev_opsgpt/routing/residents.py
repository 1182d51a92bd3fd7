"""What is loaded on which launcher, how busy it is, and how much room is left. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dev_opsgpt.routing.cards import Bounds, Card, Part

# A model that has just been loaded for a request is let alone for so long, until the request
# has come and a beat has told of it.
FRESH = 6.0


class Need(NamedTuple):
    """What something takes: replicas, and bytes of the machine's memory and of its GPUs'."""

    replicas: int = 0
    memory: int = 0
    gpu: int = 0


@dataclass
class Use:
    """What a registered worker's beats tell: ``served`` counts the requests it has taken so far,
    None where it does not say; ``last`` is when it was last seen at work."""

    busy: bool
    served: int | None
    memory: int
    last: float
    touched: bool = False

    def beat(self, busy: bool, served: int | None, memory: int, now: float) -> None:
        """Takes one more sign of life; one that is no beat tells nothing of requests and memory."""
        came = served is not None and served != (self.served or 0)
        if busy or self.busy or came:
            self.last = now
            self.touched = True
        self.busy = busy
        self.served = self.served if served is None else served
        self.memory = memory or self.memory


@dataclass
class Resident:
    """A model on a launcher: its replicas, and what we are about with it. ``ordered`` while our
    order to load it is carried out, which then counts as much as its ``card`` says; ``leaving``
    while it is being unloaded; ``by_hand`` where somebody wants it to stay, whether or not a
    request was first; ``target`` is the number of replicas that it is brought to, 0
    while nobody is about that."""

    card: Card
    parts: tuple[Part, ...] = ()
    since: float = 0.0
    demanded: bool = False
    by_hand: bool = False
    ordered: bool = False
    leaving: bool = False
    target: int = 0
    last: float = 0.0
    touched: bool = False

    @property
    def movable(self) -> bool:
        """Whether it may be unloaded without being asked for by name."""
        return (self.demanded and not self.by_hand) or not self.card.stays

    @property
    def stays_put(self) -> bool:
        """Whether some replica of it is there, or comes, and is not being stopped."""
        return any(part.state != "leaving" for part in self.parts)

    def replicas(self) -> int:
        """The replicas that it has, or is to have: one that has none is about to."""
        coming = self.card.replicas if self.ordered or not (self.parts or self.target) else 0
        return max(len(self.parts), coming, self.target)

    def memory(self, uses: dict[str, Use], size: int) -> int:
        """What it takes: what the workers say, for each replica ``size`` at least."""
        told = [max(size, uses[p.address].memory if p.address in uses else 0) for p in self.parts]
        return sum(told) + max(0, self.replicas() - len(told)) * size


@dataclass
class Host:
    """One launcher: what it can load, how much, and what it has."""

    cards: dict[str, Card] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=Bounds)
    residents: dict[str, Resident] = field(default_factory=dict)
    released: frozenset[str] = frozenset()
    failures: Mapping[str, str] = field(default_factory=dict)
    reported: bool = False
    # What a replica was seen to take, by model, which is more than its files have: known to all
    # hosts, and kept when a launcher leaves for a moment.
    seen: dict[str, int] = field(default_factory=dict)

    def size(self, model: str) -> int:
        """What a replica takes: what the files have, or what one took when it was loaded."""
        card = self.cards.get(model)
        return max(card.size if card is not None else 0, self.seen.get(model, 0))

    def need(self, card: Card, replicas: int | None = None) -> Need:
        """What so many replicas of a model take together, those of a load where nobody says."""
        count = card.replicas if replicas is None else replicas
        return Need(count, count * self.size(card.name), count * card.gpu)

    def replicas(self) -> int:
        """The replicas that it has, or is to have."""
        return sum(resident.replicas() for resident in self.residents.values())

    def taken(self, model: str, uses: dict[str, Use]) -> Need:
        """What a model takes that is there."""
        resident = self.residents[model]
        count = resident.replicas()
        memory = resident.memory(uses, self.size(model))
        return Need(count, memory, count * resident.card.gpu)

    def fits(
        self, uses: dict[str, Use], needs: Iterable[Need], without: Collection[str] = ()
    ) -> bool:
        """Whether there is room for all of it, were some models not there."""
        taken = [self.taken(name, uses) for name in self.residents if name not in without]
        bounds = (self.bounds.replicas, self.bounds.memory, self.bounds.gpu)
        sums = map(sum, zip(Need(), *taken, *needs, strict=True))
        return all(most is None or used <= most for used, most in zip(sums, bounds, strict=True))

    def ever(self, uses: dict[str, Use], need: Need) -> bool:
        """Whether there would be room if all went that may."""
        movable = [name for name, resident in self.residents.items() if resident.movable]
        return self.fits(uses, [need], movable)


class Residents:
    """Everything that is loaded, by launcher. Launchers report their parts, workers' beats tell
    who is at work; ``now`` is in monotonic seconds."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.uses: dict[str, Use] = {}
        self.seen: dict[str, int] = {}

    def announce(self, launcher: str, cards: Iterable[Card], bounds: Bounds) -> None:
        """A launcher is there, and can load these."""
        host = self.hosts.setdefault(launcher, Host(seen=self.seen))
        host.cards, host.bounds = {card.name: card for card in cards}, bounds
        for name, resident in host.residents.items():
            resident.card = host.cards.get(name, resident.card)

    def reserve(self, launcher: str, model: str, count: int, now: float) -> Resident:
        """More replicas of a model are about to be started there: they count from now on. Where it
        was to be unloaded, it is not any more."""
        host = self.hosts[launcher]
        resident = host.residents.get(model)
        if resident is None:
            resident = host.residents[model] = Resident(host.cards[model], since=now, last=now)
        resident.target, resident.leaving = len(resident.parts) + count, False
        return resident

    def failure(self, model: str) -> str:
        """Why a model does not run that was to from the start, as a launcher tells; else empty."""
        told = (host.failures.get(model) for host in self.hosts.values())
        return next(filter(None, told), "")

    def released(self, model: str) -> bool:
        """Whether somebody has had a model taken out of service, wherever it could be loaded."""
        able = [host for host in self.hosts.values() if model in host.cards]
        return bool(able) and all(model in host.released for host in able)

    def gone(self, launcher: str) -> None:
        """A launcher has left. Its workers may serve on, but nothing can be decided on them."""
        self.hosts.pop(launcher, None)

    def report(
        self,
        launcher: str,
        parts: Iterable[Part],
        released: Iterable[str],
        now: float,
        failures: Mapping[str, str] | None = None,
    ) -> None:
        """Takes what a launcher has, all of it, and why models do not run there that were to."""
        host = self.hosts.get(launcher)
        if host is None:
            return
        host.released, host.reported = frozenset(released), True
        host.failures = failures or {}
        by_model: dict[str, list[Part]] = {}
        for part in parts:
            by_model.setdefault(part.model, []).append(part)
        for name, found in by_model.items():
            if name not in host.residents:
                card = host.cards.get(name, Card(name=name, names=(name,), stays=True))
                host.residents[name] = Resident(card, since=now, last=now)
            resident = host.residents[name]
            resident.parts = tuple(found)
            if not resident.ordered:
                resident.demanded = any(part.demanded for part in found)
        for name in [name for name in host.residents if name not in by_model]:
            resident = host.residents[name]
            resident.parts = ()
            if not (resident.ordered or resident.target):
                del host.residents[name]

    def heard(self, address: str, busy: bool, served: int | None, memory: int, now: float) -> None:
        """A worker is registered, and tells its load."""
        use = self.uses.get(address)
        if use is None:
            use = self.uses[address] = Use(False, None, 0, now)
        use.beat(busy, served, memory, now)
        resident = self.at(address)
        if resident is not None:
            resident.last = max(resident.last, use.last)
            resident.touched = resident.touched or use.touched
            name = resident.card.name
            self.seen[name] = max(self.seen.get(name, 0), use.memory)

    def lost(self, address: str) -> None:
        """A worker is registered no more."""
        self.uses.pop(address, None)

    def at(self, address: str) -> Resident | None:
        """The resident that a worker belongs to."""
        for host in self.hosts.values():
            for resident in host.residents.values():
                if any(part.address == address for part in resident.parts):
                    return resident
        return None

    def on(self, launcher: str, model: str) -> Resident | None:
        """A model on a launcher."""
        host = self.hosts.get(launcher)
        return host.residents.get(model) if host is not None else None

    def told(self, model: str) -> int | None:
        """The memory that a model takes, as the workers tell it; None until all of them have."""
        parts = [part for _, resident in self.of(model) for part in resident.parts]
        told = [self.uses[p.address].memory for p in parts if p.address in self.uses]
        return sum(told) if told and all(told) else None

    def of(self, model: str) -> Iterator[tuple[str, Resident]]:
        """The launchers that have a model."""
        for launcher, host in self.hosts.items():
            if model in host.residents:
                yield launcher, host.residents[model]

    def ready(self, resident: Resident) -> bool:
        """Whether some replica of it serves, and gateways can know of it."""
        return not resident.leaving and any(
            part.state == "ready" and part.address in self.uses for part in resident.parts
        )

    def idle(self, resident: Resident, now: float) -> bool:
        """Whether nobody is at work there, as far as is known, and nobody is about to be."""
        if resident.ordered or resident.leaving or resident.target or not resident.parts:
            return False
        # One that is ready and not registered is about to be; one that dies all the time is idle.
        if not all(
            part.state == "restarting" or (part.state == "ready" and part.address in self.uses)
            for part in resident.parts
        ):
            return False
        fresh = not resident.touched and now - resident.last < FRESH
        uses = (self.uses.get(part.address) for part in resident.parts)
        return not fresh and not any(use is not None and use.busy for use in uses)

    def resolve(self, name: str) -> str | None:
        """The model that clients or the configuration call so."""
        cards = [card for host in self.hosts.values() for card in host.cards.values()]
        for card in cards:
            if card.name == name:
                return card.name
        return next((card.name for card in cards if name in card.names), None)
