"""A world for the code that decides what is loaded: launchers, processes, gateways and clients
that are simulated, with a clock that the test turns. What the deciding code is told is late and
coarse, as in the real service; what is checked is the truth."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, combinations
from random import Random

from dev_opsgpt.routing.cards import Bounds, Card, Part
from dev_opsgpt.routing.line import TURN_LASTS
from dev_opsgpt.routing.residency import Order, Residency

BEAT = 2.0
REPORT = 0.5
POLL = 5.0
SETTLE = 0.5
LOOKS = 0.3
ROOM_TIMEOUT = 60.0


@dataclass
class Process:
    """One replica's process; ``ready`` is when it serves."""

    model: str
    address: str
    launcher: str
    size: int
    ready: float
    demanded: bool
    serves: bool = False
    draining: bool = False
    in_flight: int = 0
    served: int = 0
    next_beat: float = 0.0


@dataclass
class Client:
    """A request: it waits for its model, runs until ``ends``, and has one answer at most."""

    model: str
    since: float
    polls: float
    process: Process | None = None
    ends: float = 0.0
    answer: str = ""


@dataclass
class Task:
    """An order that is being carried out; an unload first settles, then looks."""

    order: Order
    due: float
    looked: bool = False


@dataclass
class Scaling:
    """Somebody has more replicas of a model started on a launcher, or some of them stopped."""

    model: str
    launcher: str
    coming: list[Process]
    leaving: list[Process]


@dataclass
class World:
    """All of it. Of the orders about one model each waits in ``queue`` for its turn; ``locked`` are
    the models that something is being done with. ``wanted`` is since when each model is,
    ``in_line`` since when requests wait for it and all that it waits for is room."""

    random: Random
    cards: dict[str, list[Card]]
    bounds: dict[str, Bounds]
    broken: frozenset[str] = frozenset()
    fails: float = 0.05
    real: dict[str, float] = field(default_factory=dict)
    now: float = 1000.0
    residency: Residency = field(default_factory=Residency)
    processes: list[Process] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    scalings: list[Scaling] = field(default_factory=list)
    queue: list[Order] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    away: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    wanted: dict[str, float] = field(default_factory=dict)
    in_line: dict[str, float] = field(default_factory=dict)
    _number: int = 0
    _reports: float = 0.0

    def __post_init__(self) -> None:
        """Connects the launchers."""
        for name, cards in self.cards.items():
            self.residency.residents.announce(name, cards, self.bounds[name])
            self.report(name)

    # What the test does.

    def ask(self, model: str) -> None:
        """One more request."""
        self.clients.append(Client(model, self.now, self.now))
        self.counts["asked"] += 1

    def hang_up(self) -> None:
        """A client that waits or is served goes away."""
        open_ = [client for client in self.clients if not client.answer]
        if open_:
            self.finish(self.random.choice(open_), "gone")

    def crash(self) -> None:
        """A process dies, with its requests."""
        if self.processes:
            process = self.random.choice(self.processes)
            for client in self.clients:
                if client.process is process and not client.answer:
                    self.finish(client, "broken")
            self.end(process)
            self.counts["crashed"] += 1

    def lose_launcher(self, name: str) -> None:
        """The controller loses a launcher for a while; its processes go on."""
        if name in self.away:
            return
        self.away[name] = self.now + self.random.uniform(0.5, 5)
        self.residency.residents.gone(name)
        for task in [task for task in self.tasks if task.order.launcher == name]:
            self.tasks.remove(task)
            self.fail_lost(task)
        for scaling in [scaling for scaling in self.scalings if scaling.launcher == name]:
            self.scaled(scaling)

    def fail_lost(self, task: Task) -> None:
        """What becomes of an order whose launcher has left."""
        for process in self.of(task.order):
            process.draining = False
        if task.order.kind == "load":
            self.residency.failed(task.order, "left", self.now, its_fault=False)
        else:
            self.residency.kept(task.order, self.now)

    @property
    def locked(self) -> set[str]:
        """The models that something is being done with."""
        return {t.order.model for t in self.tasks} | {s.model for s in self.scalings}

    def unload(self, model: str) -> None:
        """Somebody unloads a model by hand, wherever it is. An order that has not had its turn is
        called off by that."""
        if model in self.locked:
            return
        for launcher, _ in list(self.residency.residents.of(model)):
            self.residency.unload(model, launcher)
            self.start(Order("unload", launcher, model, "by hand"))
            self.counts["by hand"] += 1

    def keep(self, model: str) -> None:
        """Somebody has a model loaded, or kept that a request has loaded. Launchers know that at
        once, if they are there."""
        if self.away:
            return
        self.residency.want(model, self.now, by_hand=True)
        for process in self.processes:
            if process.model == model:
                process.demanded = False
        self.counts["kept by hand"] += 1

    def scale(self, model: str, count: int) -> None:
        """Somebody has ``count`` more replicas of a model that is loaded, or fewer."""
        found = list(self.residency.residents.of(model))
        if model in self.locked or not found:
            return
        launcher, resident = found[0]
        host = self.residency.residents.hosts[launcher]
        here = [p for p in self.processes if (p.launcher, p.model) == (launcher, model)]
        if count > 0:
            need = host.need(host.cards[model], count)
            if not resident.parts or not host.fits(self.residency.residents.uses, [need]):
                return
            self.residency.residents.reserve(launcher, model, count, self.now)
            card = next(c for c in self.cards[launcher] if c.name == model)
            coming = [self.spawn(card, launcher, 1.0, here[0].demanded) for _ in range(count)]
            self.scalings.append(Scaling(model, launcher, coming, []))
        elif len(here) > -count:
            for process in here[count:]:
                process.draining = True
            self.scalings.append(Scaling(model, launcher, [], here[count:]))
        self.counts["scaled"] += 1

    def scaled(self, scaling: Scaling) -> None:
        """A scaling has ended, as far as it went."""
        self.scalings.remove(scaling)
        for process in scaling.leaving:
            process.draining = False
        resident = self.residency.residents.on(scaling.launcher, scaling.model)
        if resident is not None and scaling.coming:
            resident.target = 0

    def pass_time(self, seconds: float) -> None:
        """Lets time pass in small steps, and checks after each."""
        end = self.now + seconds
        while self.now < end:
            self.now += min(0.1, end - self.now) or 0.1
            self.step()
            self.check()

    # What goes on by itself.

    def step(self) -> None:
        """One moment: everybody does what is due."""
        for name in [name for name, back in self.away.items() if back <= self.now]:
            del self.away[name]
            self.residency.residents.announce(name, self.cards[name], self.bounds[name])
            self.report(name)
        self.serve()
        self.work()
        self.beat()
        if self.now >= self._reports:
            self._reports = self.now + REPORT
            for name in self.cards:
                self.report(name)
        wishes = self.residency._wishes
        self.wanted = {model: self.wanted.get(model, self.now) for model in wishes}
        orders = self.residency.decide(self.now)
        for number, order in enumerate(orders):
            assert order.launcher not in self.away, "an order to a launcher that is away"
            self.counts[order.kind] += 1
            self.queue.append(order)
            if order.kind == "load":
                self.check_turn(order, [later.model for later in orders[number:]])
        self.stand_in_line()
        self.take_turns()
        self.scale_on()

    def take_turns(self) -> None:
        """Begins the orders whose models nothing else is being done with."""
        for order in list(self.queue):
            if order.model not in self.locked:
                self.queue.remove(order)
                if self.residency.stands(order):
                    self.start(order)

    def start(self, order: Order) -> None:
        """The controller has an order carried out."""
        if order.kind == "unload":
            found = self.of(order)
            wanted = any(not process.demanded for process in found)
            assert order.why == "by hand" or not wanted, "somebody wants it to stay"
            for process in found:
                process.draining = True
            self.tasks.append(Task(order, self.now + SETTLE))
            return
        assert not self.of(order), "loaded twice on one launcher"
        card = next(c for c in self.cards[order.launcher] if c.name == order.model)
        seconds = self.random.uniform(0.2, 4)
        for _ in range(card.replicas):
            self.spawn(card, order.launcher, seconds, order.demanded)
        self.tasks.append(Task(order, self.now + seconds))
        self.check_memory(order.launcher)

    def spawn(self, card: Card, launcher: str, seconds: float, demanded: bool) -> Process:
        """A launcher starts a process, which serves after so many seconds."""
        self._number += 1
        address = f"http://{launcher}:{self._number}"
        # What a model really takes is not what its files have, and comes out with the first.
        size = int(card.size * self.real.get(card.name, 1.0))
        made = Process(card.name, address, launcher, size, self.now + seconds, demanded)
        self.processes.append(made)
        return made

    def scale_on(self) -> None:
        """Replicas that were started serve, those that are to go end when they are empty."""
        for scaling in list(self.scalings):
            for process in [p for p in scaling.leaving if not p.in_flight]:
                scaling.leaving.remove(process)
                if process in self.processes:
                    self.end(process)
            coming = [p for p in scaling.coming if p in self.processes]
            for process in [p for p in coming if p.ready <= self.now and not p.serves]:
                self.begin_to_serve(process)
            if not scaling.leaving and all(process.serves for process in coming):
                self.report(scaling.launcher)
                self.scaled(scaling)

    def check_memory(self, launcher: str) -> None:
        """Nothing is loaded for which there is no room, by all that can be known."""
        most = self.bounds[launcher].memory
        sizes = {card.name: card.size for card in self.cards[launcher]}
        here = [p for p in self.processes if p.launcher == launcher]
        # Of a model that is loaded for the first time only the files are known.
        known = [
            max(sizes[p.model], p.size if p.model in self.seen else 0)
            for p in here
            if self.seen.get(p.model, 0.0) < self.now - BEAT - 0.2
        ]
        assert most is None or sum(known) <= most

    def stand_in_line(self) -> None:
        """Who waits for what, as clients see it."""
        waiting = {c.model for c in self.clients if not c.answer and c.process is None}
        room = sorted(model for model in waiting if self.lacks_room(model))
        self.in_line = {model: self.in_line.get(model, self.now) for model in room}
        waited = [self.now - since for since in self.in_line.values()]
        self.counts["waited longer than a turn"] += any(w > TURN_LASTS for w in waited)

    def lacks_room(self, model: str) -> bool:
        """Whether a model waits, and nothing goes for it yet."""
        standing = self.residency.standing(model, self.now)
        return (
            standing is not None
            and standing.phase == "waiting"
            and standing.message.startswith("there is no room")
        )

    def check_turn(self, order: Order, latest: list[str]) -> None:
        """A load takes no room from what has waited for it for longer; ``latest`` are the models of
        which it is one and that were decided on after it."""
        for model, since in self.in_line.items():
            if since >= self.wanted[order.model] or not self.lacks_room(model):
                continue
            self.counts["loaded while others wait"] += 1
            if self.now - self.wanted[model] < TURN_LASTS:
                assert not self.overtakes(order, model, latest), f"{order.model} overtakes {model}"

    def overtakes(self, order: Order, model: str, latest: list[str]) -> bool:
        """Whether there is something that could go and would leave room for a model on a launcher,
        were it not for what is loaded there now."""
        host = self.residency.residents.hosts[order.launcher]
        if model not in host.cards:
            return False
        uses, need = self.residency.residents.uses, [host.need(host.cards[model])]
        there = {n: r for n, r in host.residents.items() if n not in latest}
        leaving = [name for name, resident in there.items() if resident.leaving]
        movable = [n for n, r in there.items() if r.movable and not r.leaving]
        some = chain.from_iterable(combinations(movable, n) for n in range(len(movable) + 1))
        return any(
            host.fits(uses, need, (*leaving, *latest, *gone))
            and not host.fits(
                uses, need, (*leaving, *gone, *(n for n in latest if n != order.model))
            )
            for gone in some
        )

    def work(self) -> None:
        """Goes on with the orders."""
        for task in [task for task in self.tasks if task.due <= self.now]:
            if task.order.kind == "load":
                self.tasks.remove(task)
                self.load(task.order)
            elif not task.looked:
                task.looked, task.due = True, self.now + LOOKS
            else:
                self.tasks.remove(task)
                self.empty(task.order)

    def load(self, order: Order) -> None:
        """A load ends."""
        found = self.of(order)
        if order.model in self.broken or self.random.random() < self.fails or not found:
            for process in found:
                self.end(process)
            self.report(order.launcher)
            self.residency.failed(order, "it is broken", self.now)
            self.counts["failed"] += 1
            return
        for process in found:
            self.begin_to_serve(process)
        self.report(order.launcher)
        self.residency.loaded(order, self.now)
        resident = self.residency.residents.on(order.launcher, order.model)
        if resident is not None and resident.by_hand:
            for process in found:
                process.demanded = False

    def begin_to_serve(self, process: Process) -> None:
        """A process registers; its memory is told with the first beat."""
        process.serves = True
        process.next_beat = self.now + BEAT
        self.seen.setdefault(process.model, self.now)
        self.residency.residents.heard(process.address, False, None, 0, self.now)

    def empty(self, order: Order) -> None:
        """An unload has looked: who is at work stays."""
        found = self.of(order)
        if any(process.in_flight for process in found) and order.why != "by hand":
            for process in found:
                process.draining = False
            self.residency.kept(order, self.now)
            self.counts["kept"] += 1
        elif any(process.in_flight for process in found):
            self.tasks.append(Task(order, self.now + LOOKS, looked=True))
        else:
            for process in found:
                self.end(process)
            self.report(order.launcher)
            self.residency.unloaded(order)

    def end(self, process: Process) -> None:
        """A process ends: nobody may lose an answer by it."""
        open_ = [c for c in self.clients if c.process is process and not c.answer]
        assert not open_, "a busy model was unloaded"
        self.processes.remove(process)
        self.residency.residents.lost(process.address)

    def beat(self) -> None:
        """The workers tell their load."""
        for process in self.processes:
            if process.serves and process.next_beat <= self.now:
                process.next_beat = self.now + BEAT
                busy, size = process.in_flight > 0, process.size
                self.residency.residents.heard(
                    process.address, busy, process.served, size, self.now
                )

    def report(self, launcher: str) -> None:
        """A launcher tells what it has."""
        if launcher in self.away:
            return
        parts = [
            Part(
                model=p.model,
                address=p.address,
                state="ready" if p.serves else "starting",
                demanded=p.demanded,
            )
            for p in self.processes
            if p.launcher == launcher
        ]
        self.residency.residents.report(launcher, parts, (), self.now)
        if any(not p.serves and p.ready <= self.now for p in self.processes):
            self.late_ready()

    def late_ready(self) -> None:
        """Processes whose order was cut short start to serve by themselves."""
        ordered = {(t.order.launcher, t.order.model) for t in self.tasks}
        ordered |= {(s.launcher, s.model) for s in self.scalings}
        for process in self.processes:
            due = not process.serves and process.ready <= self.now
            if due and (process.launcher, process.model) not in ordered:
                self.begin_to_serve(process)

    def serve(self) -> None:
        """The gateway: requests are answered, sent on, wait, or are told why not."""
        for client in [client for client in self.clients if not client.answer]:
            if client.process is not None:
                if client.ends <= self.now:
                    self.finish(client, "served")
                continue
            ready = [
                p for p in self.processes if p.model == client.model and p.serves and not p.draining
            ]
            if ready:
                client.process = self.random.choice(ready)
                client.process.in_flight += 1
                client.process.served += 1
                client.ends = self.now + self.random.choice([0.1, 0.5, 3, 15])
            else:
                self.wait(client)

    def wait(self, client: Client) -> None:
        """A client waits on for its model, unless it is told that that is no use."""
        standing = self.residency.standing(client.model, self.now)
        if standing is not None and standing.phase == "failed":
            self.finish(client, "refused")
        elif self.now - client.since > ROOM_TIMEOUT:
            self.finish(client, "timed out")
        elif client.polls <= self.now:
            client.polls = self.now + POLL
            self.residency.want(client.model, self.now)

    def finish(self, client: Client, answer: str) -> None:
        """A client is told, once."""
        assert not client.answer, "answered twice"
        client.answer = answer
        self.counts[answer] += 1
        if client.process is not None:
            client.process.in_flight -= 1

    def of(self, order: Order) -> list[Process]:
        """The processes that an order is about."""
        return [p for p in self.processes if (p.launcher, p.model) == (order.launcher, order.model)]

    # What has to hold.

    def check(self) -> None:
        """What has to hold at any moment, of the truth and of the tables."""
        models = {card.name for cards in self.cards.values() for card in cards}
        for name, bounds in self.bounds.items():
            here = [p for p in self.processes if p.launcher == name]
            assert bounds.replicas is None or len(here) <= bounds.replicas
        residents = self.residency.residents
        assert set(residents.uses) == {p.address for p in self.processes if p.serves}
        assert self.residency._wishes.keys() <= models
        assert self.residency._failures._found.keys() <= models
        open_ = [client for client in self.clients if not client.answer]
        assert all(self.now - c.since < 2 * ROOM_TIMEOUT + 30 for c in open_), "a lost request"
        self.clients = open_
