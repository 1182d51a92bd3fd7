"""Who gets computed in the next step: pure decisions, no tensors, no clock."""

from collections import deque
from dataclasses import dataclass, field

from dev_opsgpt.engines.hf.blocks import BLOCK, BlockPool, Table, blocks_for
from dev_opsgpt.engines.hf.ended import Ended
from dev_opsgpt.engines.hf.running import Running

WORTH_WAITING = 4 * BLOCK
"""Tokens of a common beginning that one waits for rather than computes."""


@dataclass(frozen=True)
class Work:
    """The next ``count`` tokens of a sequence, from ``start`` on. ``last``: they are all that is
    pending, so what the model says after them is the next token."""

    sequence: Running
    start: int
    count: int

    @property
    def last(self) -> bool:
        """Whether the next token is known after this."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass
class Plan:
    """One step: the work; the sequences whose state has to go to make room, those that run
    (``preempted``) and those that have ended (``dropped``); and who goes on from whose state."""

    works: list[Work] = field(default_factory=list)
    preempted: list[Running] = field(default_factory=list)
    dropped: list[Running] = field(default_factory=list)
    heirs: list[tuple[Running, Running]] = field(default_factory=list)
    """The one that has ended, and the one that goes on."""


class Scheduler:
    """Holds the sequences that wait and those that run, in the order of their coming.

    Every running sequence that generates gets its token in every step. ``prefill_tokens`` are
    shared by those whose prompt is not through: a quarter is for the oldest, so that it ends, the
    rest goes to the shortest first, so that a short one does not wait for a long one.

    With ``states`` each sequence has a state of its own, of which the blocks are only the measure:
    it has room for all of its answer before it begins, as it is not to be computed again, and when
    it has ended its state is kept for a prompt that begins with it. There are never more than
    ``parallel`` states. With ``whole`` a prompt is computed in one piece, one a step, and nothing
    is kept: for models that cannot go on from inside of it.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        parallel: int,
        prefill_tokens: int,
        states: bool = False,
        whole: bool = False,
    ) -> None:
        self._pool = pool
        self._parallel = parallel
        self._prefill_tokens = prefill_tokens
        self._states = states
        self._whole = whole
        self._ended = Ended()
        self.waiting: deque[Running] = deque()
        self.running: list[Running] = []

    def add(self, sequence: Running) -> None:
        """Lets a sequence wait for its turn."""
        self.waiting.append(sequence)

    def remove(self, sequence: Running) -> None:
        """Takes a sequence out, wherever it is."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._pool.close(sequence.table)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def end(self, sequence: Running) -> bool:
        """Takes a sequence out that may be gone on from; whether its state has to be kept."""
        kept = (
            self._states
            and not self._whole
            and sequence in self.running
            and self._ended.add(sequence)
        )
        if kept:
            self.running.remove(sequence)
            self._pool.trim(sequence.table, sequence.computed)
        else:
            self.remove(sequence)
        return kept

    def discard(self, sequence: Running) -> list[int]:
        """Takes a running sequence out, of which nothing may stay. Gives the blocks to clear."""
        gone = self._pool.discard(sequence.table)
        self.remove(sequence)
        return gone

    @property
    def empty(self) -> bool:
        """Whether there is nobody."""
        return not self.running and not self.waiting

    def everyone(self) -> list[Running]:
        """Those that run and those that wait."""
        return [*self.running, *self.waiting]

    def done(self, work: Work) -> None:
        """Notes that the work was computed."""
        sequence = work.sequence
        sequence.computed = work.start + work.count
        self._pool.learn(sequence.table, sequence.tokens, sequence.computed)

    def plan(self) -> Plan:
        """The next step; empty if there is nobody."""
        plan = Plan()
        self._make_room(plan)
        self._admit(plan)
        prefilling = []
        for sequence in self.running:
            if sequence.pending == 1:
                plan.works.append(Work(sequence, sequence.computed, 1))
            else:
                prefilling.append(sequence)
        plan.works += self._chunks(prefilling)
        return plan

    def _make_room(self, plan: Plan) -> None:
        """Gives each running sequence the blocks for its pending tokens, the oldest first; takes
        them from the youngest where there are no more."""
        for sequence in list(self.running):
            while sequence in self.running:
                if self._pool.extend(sequence.table, len(sequence.tokens)):
                    break
                youngest = self.running.pop()
                self._pool.close(youngest.table)
                youngest.table, youngest.computed = Table(), 0
                self.waiting.appendleft(youngest)
                plan.preempted.append(youngest)

    def _admit(self, plan: Plan) -> None:
        """Lets in who waits, in order, while there is room."""
        for sequence in list(self.waiting):
            if len(self.running) >= self._parallel:
                return
            if self._comes_soon(sequence):
                continue
            if not self._let_in(sequence, plan):
                return
            self.waiting.remove(sequence)
            if sequence.cached is None:
                sequence.cached = sequence.computed
            self.running.append(sequence)

    def _let_in(self, sequence: Running, plan: Plan) -> bool:
        """Gives it blocks, those of what it goes on from among them; False, and no change, where
        there is no room."""
        length, spare = self._needs(sequence)
        if not self._pool.room_for(sequence.tokens, length, spare - self._ended.blocks):
            return False
        before = self._ended.take(sequence.tokens)
        table = Table() if before is None else before.table
        missing = blocks_for(length) - len(table.blocks)
        while len(self._ended) and (
            missing > self._pool.available or len(self.running) + len(self._ended) >= self._parallel
        ):
            oldest = self._ended.oldest()
            self._pool.close(oldest.table)
            plan.dropped.append(oldest)
        if before is None:
            sequence.table, sequence.computed = self._pool.open(sequence.tokens, length)
        else:
            self._pool.extend(table, length)
            sequence.table, sequence.computed = table, before.computed
            plan.heirs.append((before, sequence))
        return True

    def _needs(self, sequence: Running) -> tuple[int, int]:
        """The tokens there has to be room for, and the blocks to be left then: one for each that
        runs, lest somebody is thrown out at once."""
        if not self._states:
            return len(sequence.tokens), len(self.running)
        length = sequence.prompt_length + sequence.sampling.max_tokens
        return min(length, self._pool.count * BLOCK), 0

    def _comes_soon(self, sequence: Running) -> bool:
        """Whether one that runs is about to compute more of this one's beginning than is known:
        then it waits, and takes that over."""
        if self._states or all(other.pending == 1 for other in self.running):
            return False
        reach = len(self._pool.match(sequence.tokens)) * BLOCK + WORTH_WAITING
        beginning = sequence.tokens[:reach]
        return len(sequence.tokens) > reach and any(
            other.pending > 1 and other.tokens[:reach] == beginning for other in self.running
        )

    def _chunks(self, prefilling: list[Running]) -> list[Work]:
        if not prefilling:
            return []
        if self._whole:
            first = prefilling[0]
            return [Work(first, first.computed, first.pending)]
        left = self._prefill_tokens
        oldest, rest = prefilling[0], sorted(prefilling[1:], key=lambda one: one.pending)
        counts = {id(oldest): min(oldest.pending, max(1, left // 4) if rest else left)}
        left -= counts[id(oldest)]
        for sequence in [*rest, oldest]:
            more = min(left, sequence.pending - counts.get(id(sequence), 0))
            counts[id(sequence)] = counts.get(id(sequence), 0) + more
            left -= more
        works = [Work(one, one.computed, counts[id(one)]) for one in prefilling]
        return [work for work in works if work.count]
