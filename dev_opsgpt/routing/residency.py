"""Which models are in memory: what is loaded for whom, and what has to go for it. Pure.

Somebody *wants* a model; ``decide`` gives the *orders* that follow: load it where there is room,
unload what has been idle for the longest where there is none, unload what was idle for too long.
Whoever carries an order out tells what came of it. Nothing here waits: a wish that cannot be met
now is looked at again with every ``decide``. Those that wait for room have their turns in the order
in which they came: nothing is loaded before them that would take it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from dev_opsgpt.routing.cards import Standing
from dev_opsgpt.routing.failures import Failures
from dev_opsgpt.routing.line import TURN_LASTS, Line, Wish
from dev_opsgpt.routing.residents import Host, Resident, Residents
from dev_opsgpt.routing.room import Room
from dev_opsgpt.routing.standing import standing_of


@dataclass(frozen=True)
class Order:
    """Load a model on a launcher, or unload it there, and why."""

    kind: Literal["load", "unload"]
    launcher: str
    model: str
    why: str
    demanded: bool = True


class Residency:
    """Decides on all launchers together. ``now`` is in monotonic seconds. No request loads a model
    while it is ``held``."""

    def __init__(self) -> None:
        self.residents = Residents()
        self._wishes: dict[str, Wish] = {}
        self._failures = Failures()
        self._room = Room(self.residents)
        self.held: set[str] = set()

    def want(self, model: str, now: float, *, by_hand: bool = False) -> None:
        """Somebody waits for a model; to be repeated while that is so. ``by_hand`` loads also what
        no request may, or what has failed a moment ago."""
        wish = self._wishes.get(model)
        if by_hand:
            self._failures.forgive([model])
            for _, resident in self.residents.of(model):
                resident.by_hand = True
        elif self._failures.of(model, now) is not None:
            return
        if wish is None:
            self._wishes[model] = Wish(now, by_hand, now)
        else:
            wish.renewed, wish.by_hand = now, wish.by_hand or by_hand

    def decide(self, now: float) -> list[Order]:
        """What is to be done now; it counts as begun."""
        self._forget(now)
        orders: list[Order] = []
        line = Line()
        for model, wish in list(self._wishes.items()):
            orders += self._meet(model, wish, line, now)
        orders += self._overdue(now)
        orders += self._too_much(now)
        return orders

    def loaded(self, order: Order, now: float) -> None:
        """A load is done: the model serves."""
        resident = self._ended(order)
        if resident is not None:
            resident.last, resident.touched = now, False
            resident.demanded = order.demanded
        self._failures.forgive([order.model])
        self._wishes.pop(order.model, None)

    def failed(self, order: Order, why: str, now: float, *, its_fault: bool = True) -> None:
        """A load has failed. Where that was not the model's own fault, as when its launcher left,
        it is tried again as long as somebody wants it."""
        resident = self._ended(order)
        if resident is not None and not resident.parts:
            self.residents.hosts[order.launcher].residents.pop(order.model, None)
        if not its_fault:
            return
        self._failures.add(order.model, why, now)
        self._wishes.pop(order.model, None)

    def unloaded(self, order: Order) -> None:
        """A model has left."""
        resident = self.residents.on(order.launcher, order.model)
        # One that is not leaving is another, which has come in between.
        if resident is not None and resident.leaving:
            del self.residents.hosts[order.launcher].residents[order.model]

    def kept(self, order: Order, now: float) -> None:
        """A model could not be unloaded: it was at work, or would not go."""
        if self._ended(order) is not None:
            self._room.keep(order.launcher, order.model, now)

    def stands(self, order: Order) -> bool:
        """Whether an order whose turn has come is still to be carried out."""
        resident = self.residents.on(order.launcher, order.model)
        if resident is None:
            return False
        return resident.ordered if order.kind == "load" else resident.leaving

    def unload(self, model: str, launcher: str) -> None:
        """A model is being unloaded there because somebody has said so; nothing else is being done
        with it. A load that was ordered does not stand any more."""
        self._wishes.pop(model, None)
        resident = self.residents.on(launcher, model)
        if resident is not None:
            resident.ordered, resident.leaving = False, True

    @contextmanager
    def leaving(self, model: str) -> Iterator[None]:
        """While it lasts, somebody takes a model out of service, wherever it is. No wish of before
        stands any more; one by hand that comes meanwhile is met after that."""
        self._wishes.pop(model, None)
        self._failures.forgive([model])
        for launcher, resident in list(self.residents.of(model)):
            self.unload(model, launcher)
            if not resident.parts:
                # It was ordered, and has not had its turn.
                del self.residents.hosts[launcher].residents[model]
        try:
            yield
        finally:
            for _, resident in self.residents.of(model):
                resident.leaving = False

    def forgive(self, models: Iterable[str]) -> None:
        """Other settings are in force for these: what failed may work now, and what they took says
        little of what they will."""
        for model in models:
            self._failures.forgive([model])
            self.residents.seen.pop(model, None)

    def standing(self, model: str, now: float) -> Standing | None:
        """Where a model stands; None for one that no launcher knows."""
        wish = self._wishes.get(model)
        return standing_of(
            self.residents,
            model,
            loadable=any(self._able(model, by_hand=False)),
            waits=wish.why if wish is not None else None,
            failure=self._failures.last(model),
            now=now,
        )

    def standings(self, now: float) -> list[Standing]:
        """Every model that some launcher knows."""
        hosts = self.residents.hosts.values()
        names = dict.fromkeys(n for host in hosts for n in (*host.cards, *host.residents))
        found = (self.standing(name, now) for name in names)
        return [standing for standing in found if standing is not None]

    @property
    def wishes(self) -> int:
        """How many models are wanted and not there yet."""
        return len(self._wishes)

    def _forget(self, now: float) -> None:
        known = {name for host in self.residents.hosts.values() for name in host.cards}
        for model, wish in list(self._wishes.items()):
            going_on = any(resident.ordered for _, resident in self.residents.of(model))
            if not going_on and wish.over(now):
                del self._wishes[model]
        self._failures.forget(known, now)

    def _able(self, model: str, *, by_hand: bool) -> Iterator[tuple[str, Host]]:
        """The launchers that may load a model."""
        for launcher, host in self.residents.hosts.items():
            card = host.cards.get(model)
            if card is None or not host.reported:
                continue
            stopped = model in host.released or not self.held.isdisjoint((model, *card.names))
            if by_hand or (card.on_demand and not stopped):
                yield launcher, host

    def _meet(self, model: str, wish: Wish, line: Line, now: float) -> list[Order]:
        there = [resident for _, resident in self.residents.of(model)]
        ready = [resident for resident in there if self.residents.ready(resident)]
        if ready:
            del self._wishes[model]
            for resident in ready:
                # Whoever wants it is about to ask it.
                resident.last = now
            return []
        if any(r.ordered or (r.stays_put and not r.leaving) for r in there):
            return []
        if there:
            wish.why = "it is being unloaded"
            return []
        able = list(self._able(model, by_hand=wish.by_hand))
        if not able:
            wish.why = "no launcher that may load it is connected"
            return []
        behind = [(name, host) for name, host in able if self._may(name, host, model, line)]
        for launcher, host in sorted(behind, key=lambda one: one[1].replicas()):
            needs = (host.need(host.cards[model]), *line.claims.get(launcher, ()))
            if self._room.fits(launcher, needs):
                card = host.cards[model]
                host.residents[model] = Resident(
                    card, since=now, ordered=True, demanded=not wish.by_hand, last=now
                )
                return [Order("load", launcher, model, "wanted", not wish.by_hand)]
        orders = self._make_room(model, wish, behind, line, now)
        if orders is None:
            self._no_room(model, wish, able, line, now)
            if not behind and model in self._wishes:
                wish.why = f"there is no room for it, and {line.first!r} waits for longer"
        return orders or []

    def _may(self, launcher: str, host: Host, model: str, line: Line) -> bool:
        """Whether a model may be loaded there before those that have waited for longer."""
        waiting = line.waiting.get(launcher, ())
        return self._room.harmless(launcher, waiting, host.need(host.cards[model]))

    def _make_room(
        self,
        model: str,
        wish: Wish,
        able: list[tuple[str, Host]],
        line: Line,
        now: float,
    ) -> list[Order] | None:
        """What has to go for a model, which may be leaving already; None where nothing can."""
        plans: list[tuple[float, str, list[str]]] = []
        for launcher, host in able:
            needs = (host.need(host.cards[model]), *line.claims.get(launcher, ()))
            victims = self._room.victims(launcher, needs, now)
            if victims is not None:
                latest = max((host.residents[name].last for name in victims), default=0.0)
                plans.append((latest, launcher, victims))
        if not plans:
            return None
        _, launcher, victims = min(plans)
        host = self.residents.hosts[launcher]
        line.claims.setdefault(launcher, []).append(host.need(host.cards[model]))
        wish.why = "it waits until others are unloaded"
        for name in victims:
            host.residents[name].leaving = True
        return [Order("unload", launcher, name, f"to make room for {model!r}") for name in victims]

    def _no_room(
        self, model: str, wish: Wish, able: list[tuple[str, Host]], line: Line, now: float
    ) -> None:
        """Nothing can go now: the model waits in line. Where nothing ever will, the wish is refused
        at once."""
        needs = [(launcher, host.need(host.cards[model])) for launcher, host in able]
        ever = [(launcher, need) for launcher, need in needs if self._room.ever(launcher, need)]
        if not ever:
            launcher, host = able[0]
            self._failures.refuse(model, self._room.too_large(launcher, host.cards[model]), now)
            del self._wishes[model]
            return
        wish.why = "there is no room for it: " + self._room.in_use(able[0][0])
        if now - wish.turn > TURN_LASTS:
            # Its turn has passed: it goes to the end of the line.
            wish.turn = now
            self._wishes[model] = self._wishes.pop(model)
        elif wish.holds(now):
            line.wait(model, ever)

    def _overdue(self, now: float) -> list[Order]:
        """What was idle for longer than it is kept."""
        orders = []
        for launcher, host in self.residents.hosts.items():
            for name in self._room.idle(launcher, now):
                resident = host.residents[name]
                keep = resident.card.keep_alive
                if keep is not None and now - resident.last >= keep and name not in self._wishes:
                    resident.leaving = True
                    orders.append(Order("unload", launcher, name, f"idle for {keep:g} s"))
        return orders

    def _too_much(self, now: float) -> list[Order]:
        """What has to go since more is loaded than may be: models take more than was known when
        they were loaded, or less may be loaded than before."""
        orders = []
        for launcher, host in self.residents.hosts.items():
            leaving = [name for name, r in host.residents.items() if r.leaving]
            for name in self._room.idle(launcher, now):
                if self._room.fits(launcher, (), leaving):
                    break
                host.residents[name].leaving = True
                leaving.append(name)
                orders.append(Order("unload", launcher, name, "more is loaded than may be"))
        return orders

    def _ended(self, order: Order) -> Resident | None:
        resident = self.residents.on(order.launcher, order.model)
        if resident is not None:
            resident.ordered = resident.leaving = False
        return resident
