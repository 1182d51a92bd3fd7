"""A replica as a model: slots, a queue, prompts read one at a time, batched decoding, and a cache
of prefixes."""

from collections import OrderedDict, deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from benchmarks.simulator.scenario import Engine
from benchmarks.simulator.workload import Session

# While a prompt is read, sequences that run get so much of their usual pace.
_SHARE = 0.5
Key = tuple[str, int | str]
Schedule = Callable[[float, Callable[[Any, float], None], Any], None]


class Job:
    """One request at a replica: ``prompt`` tokens in, of which ``cached`` were there, ``answer``
    tokens out. It came in at ``arrived`` through the gateway of that number, and went to the
    replica of the number ``place``."""

    __slots__ = ("answer", "arrived", "cached", "gateway", "place", "prompt", "session")

    def __init__(self, session: Session, answer: int, arrived: float, gateway: int) -> None:
        self.session = session
        self.prompt = session.shared + session.own
        self.answer = answer
        self.arrived = arrived
        self.gateway = gateway
        self.cached = 0
        self.place = -1


class PrefixStore:
    """The tokens a replica keeps of earlier sequences; those used longest ago go first. What
    several conversations begin with is kept once."""

    __slots__ = ("_block", "_kept", "_room")

    def __init__(self, capacity: int, block: int) -> None:
        self._kept: OrderedDict[Key, int] = OrderedDict()
        self._room = capacity
        self._block = block

    def cached(self, session: Session) -> int:
        """Tokens of a session's prompt that need not be read, in whole blocks; the last token
        always is, as it gives the first one of the answer."""
        found = self._kept.get(("system", session.system), 0)
        if found:
            found += min(self._kept.get(("session", session.name), 0), session.own - 1)
        return found - found % self._block

    def keep(self, session: Session, own: int) -> None:
        """Keeps a session's system prompt and ``own`` tokens after it."""
        self._put(("session", session.name), own)
        # Last, for what follows a beginning is of no use without it.
        self._put(("system", session.system), session.shared)
        kept = self._kept
        while self._room < 0:
            self._room += kept.popitem(last=False)[1]

    def _put(self, key: Key, tokens: int) -> None:
        self._room -= tokens - self._kept.get(key, 0)
        self._kept[key] = tokens
        self._kept.move_to_end(key)


class Replica:
    """Runs jobs. ``at(time, call, argument)`` has ``call(argument, time)`` called at a time;
    ``first(job, now)`` and ``done(job, now)`` are told of first tokens and ends."""

    def __init__(
        self,
        engine: Engine,
        speed: float,
        at: Schedule,
        first: Callable[[Job, float], None],
        done: Callable[[Job, float], None],
    ) -> None:
        self._engine = engine
        self._speed = speed
        self._at = at
        self._first = first
        self._done = done
        self._store = PrefixStore(engine.cache, engine.block)
        self._queue: deque[Job] = deque()
        self._unread: deque[Job] = deque()
        self._reading = False
        self._running: list[tuple[float, int, Job]] = []
        self._serial = 0
        self._version = 0
        # Every running sequence gets the same number of tokens in the same time, so one count of
        # tokens does for all of them: each ends at its own count.
        self._tokens = 0.0
        self._since = 0.0
        self._pace = 0.0
        self.load = 0

    def submit(self, job: Job, now: float) -> None:
        """Takes a job."""
        self.load += 1
        if self.load > self._engine.slots:
            self._queue.append(job)
        else:
            self._admit(job, now)

    def _admit(self, job: Job, now: float) -> None:
        self._unread.append(job)
        if not self._reading:
            self._read(now)

    def _read(self, now: float) -> None:
        """Begins with the next prompt, if there is one."""
        self._reading = bool(self._unread)
        if self._reading:
            job = self._unread.popleft()
            job.cached = self._store.cached(job.session)
            seconds = (job.prompt - job.cached) / self._engine.prefill + self._engine.step
            self._at(now + seconds / self._speed, self._was_read, job)

    def _was_read(self, job: Job, now: float) -> None:
        self._store.keep(job.session, job.session.own)
        self._first(job, now)
        self._advance(now)
        self._serial += 1
        heappush(self._running, (self._tokens + job.answer - 1, self._serial, job))
        self._read(now)
        self._go_on(now)

    def _advance(self, now: float) -> None:
        self._tokens += (now - self._since) * self._pace
        self._since = now

    def _go_on(self, now: float) -> None:
        """Sets the pace anew, and the time at which the next sequence ends by it."""
        self._version += 1
        count = len(self._running)
        if not count:
            return
        engine = self._engine
        pace = self._speed / (engine.step + engine.step_each * count)
        self._pace = pace * _SHARE if self._reading else pace
        seconds = max(0.0, self._running[0][0] - self._tokens) / self._pace
        self._at(now + seconds, self._ended, self._version)

    def _ended(self, version: int, now: float) -> None:
        if version != self._version:
            return
        self._advance(now)
        job = heappop(self._running)[2]
        self._store.keep(job.session, job.session.own + job.answer)
        self.load -= 1
        if self._queue:
            self._admit(self._queue.popleft(), now)
        self._go_on(now)
        self._done(job, now)
