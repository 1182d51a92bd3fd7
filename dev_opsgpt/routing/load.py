"""How full a replica is, as the dispatch policies count it."""

from collections.abc import Sequence
from math import inf
from random import Random

from dev_opsgpt.routing.candidate import C, Candidate

# Of more replicas than this the load is looked up in a sample only: a request's cost must not
# grow with the fleet.
SAMPLE = 16


def load(candidate: Candidate) -> float:
    """The share of its capacity in use, (running + waiting) / (limit * speed); above 1 requests
    queue. Infinite for one without speed."""
    capacity = (candidate.limit or 1) * candidate.speed
    return (candidate.running + candidate.waiting) / capacity if capacity > 0 else inf


def weight(candidate: Candidate) -> float:
    """A replica's capacity beside others': limit * speed."""
    return (candidate.limit or 1) * candidate.speed


def sample(candidates: Sequence[C], rng: Random) -> Sequence[C]:
    """``SAMPLE`` neighbours from a random place on; all of the candidates where they are fewer."""
    count = len(candidates)
    if count <= SAMPLE:
        return candidates
    start = int(rng.random() * count)
    found = candidates[start : start + SAMPLE]
    return found if len(found) == SAMPLE else [*found, *candidates[: SAMPLE - len(found)]]


def nth_least(values: Sequence[float], turn: int) -> int:
    """The place of the least value; equals take turns, so that an idle fleet is used evenly."""
    least = min(values)
    equals = values.count(least)
    place = values.index(least)
    for _ in range(turn % equals if equals > 1 else 0):
        place = values.index(least, place + 1)
    return place
