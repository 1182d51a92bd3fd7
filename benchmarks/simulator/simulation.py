"""Discrete events: conversations, gateways with the real dispatcher, replicas."""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from benchmarks.simulator.engine import Job, Replica
from benchmarks.simulator.figures import Counts
from benchmarks.simulator.scenario import Scenario
from benchmarks.simulator.workload import Session, Workload
from dev_opsgpt.routing.candidate import Asked
from dev_opsgpt.routing.dispatch import Dispatcher, dispatcher

# Weight of the newest time to the first token in a gateway's moving average.
_NEWEST = 0.2


class View:
    """A replica as one gateway knows it: a ``Candidate``."""

    __slots__ = (
        "_others",
        "address",
        "capacity",
        "first_token",
        "limit",
        "own",
        "place",
        "queue_length",
        "running",
        "speed",
        "waiting",
    )

    def __init__(self, place: int, speed: float, limit: int) -> None:
        self.place = place
        self.address = f"http://10.{place >> 8}.{place & 255}.1:20002"
        self.speed = speed
        self.limit = limit
        self.capacity = limit + limit // 2
        self.first_token: float | None = None
        self.own = self._others = self.running = self.waiting = self.queue_length = 0

    def count(self, change: int) -> None:
        """One request of this gateway more, or one less."""
        self.own += change
        self.running = self.queue_length = self.own + self._others

    def beat(self, load: int) -> None:
        """Takes the load that the replica reports."""
        self._others = max(0, load - self.own)
        self.running = self.queue_length = self.own + self._others

    def answered_after(self, seconds: float) -> None:
        """Takes the time to one more first token."""
        known = self.first_token
        self.first_token = seconds if known is None else known + _NEWEST * (seconds - known)


class Gateway:
    """A gateway: its dispatcher, its view of the fleet, and requests that wait in it while every
    replica has as many as it may get."""

    def __init__(self, dispatcher: Dispatcher, views: list[View]) -> None:
        self.dispatcher = dispatcher
        self.views = views
        self.room: deque[Job] = deque()
        self._full = 0
        self._reads = dispatcher.reads("model")

    def choose(self, job: Job, now: float) -> View | None:
        """The replica for a request, which is counted there at once; None while all are full."""
        session = job.session
        asked = Asked(
            session.name if "session" in self._reads else None,
            session.prompt + b"]" if "prompt" in self._reads else b"",
        )
        views = self.views
        if self._full:
            views = [view for view in views if view.own < view.capacity]
        view = self.dispatcher.choose("model", views, asked, now)
        if view is not None:
            view.count(1)
            self._full += view.own == view.capacity
        return view

    def left(self, view: View) -> None:
        """A request is over."""
        self._full -= view.own == view.capacity
        view.count(-1)


class Simulation:
    """One scenario under one policy. Everything follows from ``seed``."""

    def __init__(self, scenario: Scenario, policy: str, seed: int = 1) -> None:
        self._scenario = scenario
        self._heap: list[tuple[float, int, Callable[[Any, float], None], Any]] = []
        self._serial = 0
        self._workload = Workload(scenario.chats, Random(seed), scenario.gateways)
        speeds = [scenario.speeds[n % len(scenario.speeds)] for n in range(scenario.replicas)]
        self._replicas = [
            Replica(scenario.engine, speed, self._at, self._first, self._done) for speed in speeds
        ]
        self._gateways = [
            Gateway(
                dispatcher(policy, Random(seed + 1 + number)),
                [
                    View(n, speed if scenario.told else 1.0, scenario.engine.slots)
                    for n, speed in enumerate(speeds)
                ],
            )
            for number in range(scenario.gateways)
        ]
        self._chance = Random(seed)
        self._counts = Counts(scenario)

    def run(self) -> Counts:
        """Simulates until the time is over and every request that was counted has an answer."""
        scenario, heap, counts = self._scenario, self._heap, self._counts
        for at, session in self._workload.under_way(_latency(scenario)):
            self._at(at, self._turn, session)
        self._at(self._workload.gap(0.0), self._begin, None)
        if scenario.gateways > 1:
            for number in range(scenario.replicas):
                self._at(scenario.beat * number / scenario.replicas, self._beat, number)
        self._at(scenario.warm_up, self._look, None)
        while heap and (heap[0][0] < scenario.seconds or counts.open):
            now, _, call, argument = heappop(heap)
            call(argument, now)
        return counts

    def _at(self, time: float, call: Callable[[Any, float], None], argument: Any) -> None:
        self._serial += 1
        heappush(self._heap, (time, self._serial, call, argument))

    def _begin(self, _: None, now: float) -> None:
        if now < self._scenario.seconds:
            self._turn(self._workload.begin(), now)
            self._at(now + self._workload.gap(now), self._begin, None)

    def _turn(self, session: Session, now: float) -> None:
        """A session's next request comes in."""
        if now >= self._scenario.seconds:
            return
        repeated = session.shared + session.own
        self._workload.ask(session)
        sticky = self._scenario.sticky
        number = session.gateway if sticky else int(self._chance.random() * len(self._gateways))
        job = Job(session, self._workload.answer(), now, number)
        self._counts.arrived(job, repeated)
        gateway = self._gateways[number]
        if gateway.room or not self._send(gateway, job, now):
            gateway.room.append(job)

    def _send(self, gateway: Gateway, job: Job, now: float) -> bool:
        view = gateway.choose(job, now)
        if view is None:
            return False
        job.place = view.place
        self._replicas[view.place].submit(job, now)
        return True

    def _first(self, job: Job, now: float) -> None:
        self._gateways[job.gateway].views[job.place].answered_after(now - job.arrived)
        self._counts.first(job, now)

    def _done(self, job: Job, now: float) -> None:
        gateway = self._gateways[job.gateway]
        gateway.left(gateway.views[job.place])
        self._counts.done(job, now)
        session = job.session
        self._workload.answered(session, job.answer)
        if session.left:
            self._at(now + self._workload.pause(), self._turn, session)
        while gateway.room and self._send(gateway, gateway.room[0], now):
            gateway.room.popleft()

    def _beat(self, number: int, now: float) -> None:
        load = self._replicas[number].load
        for gateway in self._gateways:
            gateway.views[number].beat(load)
        if now < self._scenario.seconds:
            self._at(now + self._scenario.beat, self._beat, number)

    def _look(self, _: None, now: float) -> None:
        """Takes down how even the load is, twenty times in all."""
        scenario = self._scenario
        if now < scenario.seconds:
            self._counts.look([replica.load for replica in self._replicas], scenario.speeds)
            self._at(now + (scenario.seconds - scenario.warm_up) / 20, self._look, None)


def _latency(scenario: Scenario) -> float:
    """Seconds that an answer takes, about, in a fleet that is half busy."""
    engine = scenario.engine
    return scenario.chats.answer * (engine.step + engine.step_each * engine.slots / 2)
