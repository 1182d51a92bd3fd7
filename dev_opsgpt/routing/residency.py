"""Which models are in memory: what is loaded for whom, and what has to go for it. Pure.

Somebody *wants* a model; ``decide`` gives the *orders* that follow: load it where there is room,
unload what has been idle for the longest where there is none, unload what was idle for too long.
Whoever carries an order out tells what came of it. Nothing here waits: a wish that cannot be met
now is looked at again with every ``decide``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from dev_opsgpt.routing.cards import Phase, Standing
from dev_opsgpt.routing.residents import Host, Resident, Residents
from dev_opsgpt.routing.room import Need, Room

# A wish that nobody repeats is forgotten after so long, unless its load is under way.
WISH_LASTS = 30.0
WISH_BY_HAND_LASTS = 600.0
# A model that did not load is not tried again for so long, twice as long with each failure.
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
# What is refused since it can never fit is looked at again after so long.
REFUSED_FOR = 5.0
Claims = dict[str, list[Need]]
"""By launcher: what is kept there for those who came first."""


@dataclass(frozen=True)
class Order:
    """Load a model on a launcher, or unload it there, and why."""

    kind: Literal["load", "unload"]
    launcher: str
    model: str
    why: str
    demanded: bool = True


@dataclass
class _Wish:
    since: float
    renewed: float
    by_hand: bool
    why: str = ""


@dataclass
class _Failure:
    message: str
    until: float
    pause: float = 0.0


class Residency:
    """Decides on all launchers together. ``now`` is in monotonic seconds. No request loads a model
    while it is ``held``."""

    def __init__(self) -> None:
        self.residents = Residents()
        self._wishes: dict[str, _Wish] = {}
        self._failures: dict[str, _Failure] = {}
        self._room = Room(self.residents)
        self.held: set[str] = set()

    def want(self, model: str, now: float, *, by_hand: bool = False) -> None:
        """Somebody waits for a model; to be repeated while that is so. ``by_hand`` loads also what
        no request may, or what has failed a moment ago."""
        wish = self._wishes.get(model)
        if by_hand:
            self._failures.pop(model, None)
        elif self._failed(model, now) is not None:
            return
        if wish is None:
            self._wishes[model] = _Wish(now, now, by_hand)
        else:
            wish.renewed, wish.by_hand = now, wish.by_hand or by_hand

    def decide(self, now: float) -> list[Order]:
        """What is to be done now; it counts as begun."""
        self._forget(now)
        orders: list[Order] = []
        claims: Claims = {}
        for model, wish in list(self._wishes.items()):
            orders += self._meet(model, wish, claims, now)
        orders += self._overdue(now)
        orders += self._too_much(now)
        return orders

    def loaded(self, order: Order, now: float) -> None:
        """A load is done: the model serves."""
        resident = self._ended(order)
        if resident is not None:
            resident.last, resident.touched = now, False
            resident.demanded = order.demanded
        self._failures.pop(order.model, None)
        self._wishes.pop(order.model, None)

    def failed(self, order: Order, why: str, now: float, *, its_fault: bool = True) -> None:
        """A load has failed. Where that was not the model's own fault, as when its launcher left,
        it is tried again as long as somebody wants it."""
        resident = self._ended(order)
        if resident is not None and not resident.parts:
            self.residents.hosts[order.launcher].residents.pop(order.model, None)
        if not its_fault:
            return
        before = self._failures.get(order.model)
        pause = FIRST_PAUSE if before is None else min(before.pause * 2, LONGEST_PAUSE)
        self._failures[order.model] = _Failure(why, now + pause, max(pause, FIRST_PAUSE))
        self._wishes.pop(order.model, None)

    def unloaded(self, order: Order) -> None:
        """A model has left."""
        host = self.residents.hosts.get(order.launcher)
        resident = host.residents.get(order.model) if host is not None else None
        # One that is not leaving is another, which has come in between.
        if host is not None and resident is not None and resident.leaving:
            del host.residents[order.model]

    def kept(self, order: Order, now: float) -> None:
        """A model could not be unloaded: it was at work, or would not go."""
        if self._ended(order) is not None:
            self._room.keep(order.launcher, order.model, now)

    def unload(self, model: str, launcher: str) -> None:
        """A model is being unloaded there because somebody has said so."""
        self._wishes.pop(model, None)
        resident = self.residents.hosts[launcher].residents.get(model)
        if resident is not None:
            resident.leaving = True

    def forgive(self, models: Iterable[str]) -> None:
        """Other settings are in force for these: what failed may work now, and what they took says
        little of what they will."""
        for model in models:
            self._failures.pop(model, None)
            self.residents.seen.pop(model, None)

    def standing(self, model: str, now: float) -> Standing | None:
        """Where a model stands; None for one that no launcher knows."""
        cards = [h.cards[model] for h in self.residents.hosts.values() if model in h.cards]
        there = list(self.residents.of(model))
        if not cards and not there:
            return None
        card = cards[0] if cards else there[0][1].card
        phase, message, retry_after = self._phase(model, now)
        loadable = any(self._able(model, by_hand=False)) and phase != "restarting"
        part = next((p for _, r in there for p in r.parts if p.state == "starting"), None)
        loading = part is not None and phase == "loading"
        return Standing(
            name=model,
            names=card.names,
            phase=phase,
            loadable=loadable,
            doing=part.doing if loading and part else "",
            fraction=part.fraction if loading and part else None,
            seconds=part.seconds if loading and part else None,
            replicas=sum(p.state == "ready" for _, r in there for p in r.parts),
            memory=sum(
                r.memory(self.residents.uses, self.residents.hosts[launcher].size(model))
                for launcher, r in there
            ),
            launchers=tuple(launcher for launcher, _ in there),
            message=message,
            retry_after=retry_after,
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

    def _phase(self, model: str, now: float) -> tuple[Phase, str, float | None]:
        there = [resident for _, resident in self.residents.of(model)]
        if any(self.residents.ready(resident) for resident in there):
            return "loaded", "", None
        states = {part.state for r in there for part in r.parts if not r.leaving}
        if any(r.ordered for r in there) or states & {"starting", "ready"}:
            return "loading", "", None
        if "restarting" in states:
            return "restarting", "its process has died and is started again", None
        if (wish := self._wishes.get(model)) is not None:
            return "waiting", wish.why, None
        if there:
            return "unloading", "", None
        if (failure := self._failures.get(model)) is not None:
            # What was wrong is told until it is tried again, which a request may do then.
            left = failure.until - now
            return "failed", failure.message, left if left > 0 else None
        told = (host.failures.get(model) for host in self.residents.hosts.values())
        if message := next(filter(None, told), ""):
            return "failed", message, None
        return "unloaded", "", None

    def _failed(self, model: str, now: float) -> _Failure | None:
        failure = self._failures.get(model)
        return failure if failure is not None and now < failure.until else None

    def _forget(self, now: float) -> None:
        known = {name for host in self.residents.hosts.values() for name in host.cards}
        for model, wish in list(self._wishes.items()):
            going_on = any(resident.ordered for _, resident in self.residents.of(model))
            lasts = WISH_BY_HAND_LASTS if wish.by_hand else WISH_LASTS
            if not going_on and now - wish.renewed > lasts:
                del self._wishes[model]
        for model in [m for m in self._failures if m not in known]:
            # One that is known again later has another configuration.
            if now >= self._failures[model].until:
                del self._failures[model]

    def _able(self, model: str, *, by_hand: bool) -> Iterator[tuple[str, Host]]:
        """The launchers that may load a model."""
        for launcher, host in self.residents.hosts.items():
            card = host.cards.get(model)
            if card is None or not host.reported:
                continue
            stopped = model in host.released or not self.held.isdisjoint((model, *card.names))
            if by_hand or (card.on_demand and not stopped):
                yield launcher, host

    def _meet(self, model: str, wish: _Wish, claims: Claims, now: float) -> list[Order]:
        there = [resident for _, resident in self.residents.of(model)]
        if any(self.residents.ready(resident) for resident in there):
            del self._wishes[model]
            return []
        if any(r.ordered or (r.parts and not r.leaving) for r in there):
            return []
        if there:
            wish.why = "it is being unloaded"
            return []
        able = list(self._able(model, by_hand=wish.by_hand))
        if not able:
            wish.why = "no launcher that may load it is connected"
            return []
        for launcher, host in sorted(able, key=lambda one: one[1].replicas()):
            needs = (host.need(host.cards[model]), *claims.get(launcher, ()))
            if self._room.fits(launcher, needs):
                card = host.cards[model]
                host.residents[model] = Resident(
                    card, since=now, ordered=True, demanded=not wish.by_hand, last=now
                )
                return [Order("load", launcher, model, "wanted", not wish.by_hand)]
        return self._make_room(model, wish, able, claims, now)

    def _make_room(
        self,
        model: str,
        wish: _Wish,
        able: list[tuple[str, Host]],
        claims: Claims,
        now: float,
    ) -> list[Order]:
        plans: list[tuple[float, str, list[str]]] = []
        for launcher, host in able:
            needs = (host.need(host.cards[model]), *claims.get(launcher, ()))
            victims = self._room.victims(launcher, needs, now)
            if victims is not None:
                latest = max((host.residents[name].last for name in victims), default=0.0)
                plans.append((latest, launcher, victims))
        if not plans:
            return self._no_room(model, wish, able, now)
        _, launcher, victims = min(plans)
        host = self.residents.hosts[launcher]
        claims.setdefault(launcher, []).append(host.need(host.cards[model]))
        wish.why = "it waits until others are unloaded"
        for name in victims:
            host.residents[name].leaving = True
        return [Order("unload", launcher, name, f"to make room for {model!r}") for name in victims]

    def _no_room(
        self, model: str, wish: _Wish, able: list[tuple[str, Host]], now: float
    ) -> list[Order]:
        """Nothing can go now. Where nothing ever will, the wish is refused at once."""
        if any(self._room.ever(launcher, host.need(host.cards[model])) for launcher, host in able):
            wish.why = "there is no room for it: " + self._room.in_use(able[0][0])
            return []
        self._failures[model] = _Failure(
            self._room.too_large(able[0][0], able[0][1].cards[model]), now + REFUSED_FOR
        )
        del self._wishes[model]
        return []

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
        host = self.residents.hosts.get(order.launcher)
        resident = host.residents.get(order.model) if host is not None else None
        if resident is not None:
            resident.ordered = resident.leaving = False
        return resident
