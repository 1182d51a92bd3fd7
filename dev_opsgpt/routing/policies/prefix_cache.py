"""``prefix_cache``: the replica that has seen most of the prompt, unless it is too busy.

An engine keeps what it computed for the prompts of late, and need not compute the beginning that a
new prompt has in common with one of them. Which replica has seen what is told by nobody: it is
remembered here, of the requests that were sent there, in a tree of bounded size.
"""

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from dev_opsgpt.routing.candidate import Asked, C, Candidate, Policy
from dev_opsgpt.routing.load import nth_least
from dev_opsgpt.routing.prefix_tree import LONGEST, Match, PrefixTree
from dev_opsgpt.routing.roster import Roster

# Bytes that a model's tree may take.
BUDGET = 64 * 2**20
# What it is worth that a replica has seen the whole prompt: so many times the usual load.
WORTH = 2.5
# Up to so many candidates each is looked at; of more, so many holders of the longest beginnings,
# and as many of the others, drawn at random.
FEW = 8
DRAWN = 4
# So many requests of a lone replica are noted down to be learned from when another one comes.
MISSED = 256
# Weight of the newest value in the moving averages.
NEWEST = 1 / 64
# The load of a replica without speed.
_ENDLESS = 1e9


class Holder:
    """One life of a replica, whose cache it is: when one comes back it has nothing cached."""

    __slots__ = ("address",)

    def __init__(self, address: str) -> None:
        self.address = address


class _Sent(NamedTuple):
    """A request that was sent to a replica, unless it is asked about again."""

    asked: Asked
    prompt: bytes
    match: Match[Holder]
    holder: Holder


class PrefixCache(Policy):
    """The candidate with the least cost: its load beside the usual load, this request counted,
    less ``WORTH`` times the part of the prompt that it has seen.

    So where nobody has seen anything the load decides. One that has seen all is left for another
    when it has more than ``WORTH`` usual loads more than that one, which has seen it too from then
    on: the beginning of all prompts spreads as far as it has to. A holder is measured by what is
    usual, not by the least loaded one, so that loads that are known too late do no harm. Of a
    prompt shorter than most, less is saved, and the part is that of a prompt of mean length.
    """

    reads = frozenset({"prompt"})
    asked_alone = True

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._tree: PrefixTree[Holder] = PrefixTree(BUDGET)
        self._holders: dict[str, Holder] = {}
        self._roster = Roster()
        self._turn = -1
        self._mean_length = 0.0
        self._mean_load = 0.0
        self._last: _Sent | None = None
        self._missed: deque[tuple[str, bytes]] = deque(maxlen=MISSED)

    def choose(self, candidates: Sequence[C], asked: Asked, now: float) -> C | None:
        """Looks at all candidates where they are few, else at ``2 * DRAWN`` of them."""
        if len(candidates) == 1:
            return self._alone(candidates[0], asked)
        last = self._last
        if last is not None and last.asked is not asked:
            # The replica that was chosen last took its request: nobody asked for another one.
            self._tree.note(last.prompt, last.match, last.holder)
        while self._missed:
            address, prompt = self._missed.popleft()
            self._tree.note(prompt, self._tree.match(prompt), self._holder(address))
        prompt = _said(asked.prompt)
        match = self._tree.match(prompt)
        chosen = self._best(candidates, match, len(prompt))
        self._last = None
        if prompt:
            self._last = _Sent(asked, prompt, match, self._holder(chosen.address))
        return chosen

    def gone(self, address: str) -> None:
        """Takes nothing in the tree for cached there any more."""
        self._roster.forget(address)
        self._holders.pop(address, None)
        if self._missed:
            left = [one for one in self._missed if one[0] != address]
            self._missed = deque(left, MISSED)

    def _alone(self, candidate: C, asked: Asked) -> C:
        """Takes the only candidate, at next to no cost."""
        if self._last is not None and self._last.asked is asked:
            self._last = None
        if asked.prompt:
            self._missed.append((candidate.address, _said(asked.prompt)))
        return candidate

    def _holder(self, address: str) -> Holder:
        holder = self._holders.get(address)
        if holder is None:
            holder = self._holders[address] = Holder(address)
        return holder

    def _best(self, candidates: Sequence[C], match: Match[Holder], length: int) -> C:
        """The one with the least cost; equals take turns."""
        self._turn += 1
        seen: dict[Holder | None, int] = {}
        for step, end in zip(match.steps, match.ends, strict=True):
            for holder in step.holders:
                seen[holder] = end
        if len(candidates) <= FEW:
            loads = [_load(candidate) for candidate in candidates]
            # The mean without the busiest: of two replicas too, one can have far more than usual.
            usual = (sum(loads) - max(loads)) / (len(loads) - 1)
        else:
            candidates = [*self._drawn(candidates), *self._holding(candidates, match)]
            loads = [_load(candidate) for candidate in candidates]
            usual = self._usual(loads[:DRAWN])
        worth = WORTH / self._weight(length) * usual
        holders = self._holders
        costs = [
            load - worth * seen.get(holders.get(candidate.address), 0)
            for candidate, load in zip(candidates, loads, strict=True)
        ]
        return candidates[nth_least(costs, self._turn)]

    def _weight(self, length: int) -> float:
        """The bytes that count as a whole prompt where one has ``length``. Requests without any,
        such as embeddings, have no part in the mean."""
        if not length:
            return 1.0
        mean = self._mean_length or length
        self._mean_length = mean + NEWEST * (length - mean)
        return max(length, self._mean_length)

    def _usual(self, loads: Sequence[float]) -> float:
        """The mean load of late, from what was drawn by chance."""
        mean = self._mean_load or min(loads)
        for load in loads:
            if load < _ENDLESS:
                mean += NEWEST * (load - mean)
        self._mean_load = mean
        return mean

    def _drawn(self, candidates: Sequence[C]) -> list[C]:
        """``DRAWN`` candidates by chance."""
        random, count = self._rng.random, len(candidates)
        return [candidates[int(random() * count)] for _ in range(DRAWN)]

    def _holding(self, candidates: Sequence[C], match: Match[Holder]) -> list[C]:
        """About ``DRAWN`` candidates that have seen the longest beginnings."""
        found: list[C] = []
        for step in reversed(match.steps):
            holders = step.holders
            start = int(self._rng.random() * len(holders))
            for holder in [*holders[start:], *holders[:start]][:DRAWN]:
                if self._holders.get(holder.address) is not holder:
                    holders.remove(holder)
                    continue
                candidate = self._roster.find(candidates, holder.address)
                if candidate is not None:
                    found.append(candidate)
            if len(found) >= DRAWN:
                break
        return found


def _said(prompt: bytes) -> bytes:
    """What of a prompt can be the beginning of another one: not what ends the list of messages,
    which is not there when the conversation goes on, and no more than is looked at."""
    return prompt[:LONGEST].rstrip(b' \t\r\n"]}')


def _load(candidate: Candidate) -> float:
    """Its load with this request."""
    capacity = (candidate.limit or 1) * candidate.speed
    return (candidate.running + candidate.waiting + 1) / capacity if capacity > 0 else _ENDLESS
