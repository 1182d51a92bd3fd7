"""Conversations: who begins when, what they say, as tokens and as the bytes of real requests."""

from bisect import bisect
from itertools import accumulate
from random import Random

from benchmarks.simulator.scenario import Chats

# English text and JSON have about four bytes a token.
BYTES = 4
_POOL = 1 << 20
_BEGINNING = b'[{"role":"system","content":"%b"}'
_QUESTION = b',{"role":"user","content":"%b"}'
_ANSWER = b',{"role":"assistant","content":"%b"}'


class Session:
    """One conversation. ``prompt`` is all that was said, without the closing bracket; ``own`` is
    its tokens after the system prompt, which has ``shared``."""

    __slots__ = ("gateway", "left", "name", "own", "prompt", "shared", "system")

    def __init__(self, name: str, system: int, shared: int, prompt: bytes, left: int) -> None:
        self.name = name
        self.system = system
        self.shared = shared
        self.prompt = prompt
        self.left = left
        self.own = 0
        self.gateway = 0


class Workload:
    """Makes conversations of one kind. All chance comes from ``rng``."""

    def __init__(self, chats: Chats, rng: Random, gateways: int) -> None:
        self._chats = chats
        self._rng = rng
        self._gateways = gateways
        self._pool = bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz     ", k=_POOL))
        lengths = [self._about(chats.system) for _ in range(chats.systems)]
        self._systems = [(n, _BEGINNING % self._text(n)) for n in lengths]
        self._marks = list(accumulate(n**-chats.zipf for n in range(1, chats.systems + 1)))
        self._count = 0

    def gap(self, now: float) -> float:
        """Seconds until the next conversation begins."""
        chats = self._chats
        mean = chats.rate / chats.turns
        if chats.burst <= 1:
            return self._rng.expovariate(mean)
        # So many conversations are expected to begin until the next one does; the time is that in
        # which they do at the rates of the phases.
        expected = self._rng.expovariate(1.0)
        high, at = chats.period / 5, now
        while True:
            phase = at % chats.period
            in_burst = phase < high
            rate = mean * (chats.burst if in_burst else (5 - chats.burst) / 4)
            left = (high if in_burst else chats.period) - phase
            if expected < rate * left:
                return at + expected / rate - now
            expected -= rate * left
            # Never less than what moves the clock, for rounding can leave nothing of a phase.
            at += max(left, 1e-9)

    def under_way(self, latency: float) -> list[tuple[float, Session]]:
        """The conversations that are under way when all begins, and when they go on, so that the
        load is full from the first second. ``latency`` is the seconds an answer takes."""
        pause = self._chats.think + latency
        share = 1 - 1 / self._chats.turns
        found = []
        for _ in range(int(self._chats.rate * share * pause)):
            session = self.begin()
            left = session.left
            # Each turn is as likely to be the last, so what is past is as long as what is left.
            for _ in range(self._turns()):
                self.ask(session)
                self.answered(session, self.answer())
            session.left = left
            found.append((self._rng.random() * pause, session))
        return found

    def begin(self) -> Session:
        """A new conversation."""
        rng, marks = self._rng, self._marks
        system = bisect(marks, rng.random() * marks[-1], hi=len(marks) - 1)
        shared, beginning = self._systems[system]
        self._count += 1
        session = Session(f"session-{self._count}", system, shared, beginning, self._turns())
        session.gateway = int(rng.random() * self._gateways)
        return session

    def ask(self, session: Session) -> None:
        """Adds the next question."""
        tokens = self._about(self._chats.question)
        session.prompt += _QUESTION % self._text(tokens)
        session.own += tokens
        session.left -= 1

    def answer(self) -> int:
        """Tokens of an answer."""
        return max(2, self._about(self._chats.answer))

    def answered(self, session: Session, tokens: int) -> None:
        """Adds an answer."""
        session.prompt += _ANSWER % self._text(tokens)
        session.own += tokens

    def pause(self) -> float:
        """Seconds until the next question."""
        return self._rng.expovariate(1 / self._chats.think)

    def _turns(self) -> int:
        turns = 1
        while self._rng.random() > 1 / self._chats.turns:
            turns += 1
        return turns

    def _about(self, mean: int) -> int:
        """A number between half and one and a half of a mean."""
        return int(mean * (0.5 + self._rng.random()))

    def _text(self, tokens: int) -> bytes:
        start = int(self._rng.random() * (_POOL - tokens * BYTES))
        return self._pool[start : start + tokens * BYTES]
