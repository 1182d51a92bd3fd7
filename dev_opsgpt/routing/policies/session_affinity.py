"""``session_affinity``: one session, one replica, by consistent hashing with bounded load.

The ring of hashes gives a session its home; the bound on load is that of Mirrokni, Thorup and
Zadimoghaddam (Consistent Hashing with Bounded Loads, 2018): a replica that has more than its share
passes a request on to the next one on the ring.
"""

from collections.abc import Sequence
from math import ceil
from random import Random

from dev_opsgpt.routing.candidate import Asked, C, Policy
from dev_opsgpt.routing.hash_ring import HashRing
from dev_opsgpt.routing.load import SAMPLE, load, sample, weight
from dev_opsgpt.routing.policies.least_load import LeastLoad
from dev_opsgpt.routing.roster import Roster

# A replica may have so many times its share of the requests.
BOUND = 1.4


class SessionAffinity(Policy):
    """The first candidate on the ring, from the session's home on, with room for one more: with
    it, it has no more than ``BOUND`` times its share, by limit * speed, of all requests.

    Requests without a session go to the least loaded one. Of more than ``SAMPLE`` candidates the
    share is estimated from so many, and so many are tried at most. The ring is the same in every
    gateway, so each sends a session to the same replica.
    """

    reads = frozenset({"session"})

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._ring = HashRing()
        self._roster = Roster()
        self._others = LeastLoad(rng)

    def choose(self, candidates: Sequence[C], asked: Asked, now: float) -> C | None:
        """Looks at ``SAMPLE`` candidates for their load, and along the ring."""
        if asked.session is None:
            return self._others.choose(candidates, asked, now)
        newcomers = self._roster.newcomers(candidates)
        if newcomers:
            self._ring.add(newcomers)
        share = self._share(candidates)
        full = []
        for address in self._ring.walk(asked.session):
            candidate = self._roster.find(candidates, address)
            if candidate is None:
                continue
            if candidate.running + candidate.waiting < ceil(share * weight(candidate)):
                return candidate
            full.append(candidate)
            if len(full) == SAMPLE:
                break
        return min(full, key=load)

    def gone(self, address: str) -> None:
        """Takes it off the ring; its sessions go to those that follow."""
        if address in self._roster:
            self._roster.forget(address)
            self._ring.remove(address)

    def _share(self, candidates: Sequence[C]) -> float:
        """Requests that a replica may have, this one too, for each unit of its weight."""
        looked_at = sample(candidates, self._rng)
        # This request is one more among all of them, or its part among those looked at.
        requests = len(looked_at) / len(candidates)
        total = 0.0
        for candidate in looked_at:
            requests += candidate.running + candidate.waiting
            total += weight(candidate)
        return BOUND * requests / total if total else 0.0
