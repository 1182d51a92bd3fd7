"""Whether a load may go before one that has waited for room for longer. Pure.

A model waits for others to go, nobody knows which. One that comes later may be loaded meanwhile
where it makes no difference: whatever has to go for the first one is as much with it as without it.
"""

from collections.abc import Iterable, Sequence

from dev_opsgpt.routing.residents import Host, Need, Use

# Of so many different sums of what models take all are looked at; with more it is taken that there
# is one that is just enough.
MOST_SUMS = 4096


def harmless(host: Host, uses: dict[str, Use], waiting: Sequence[Need], other: Need) -> bool:
    """Whether ``other`` can be loaded on a host and takes no room there from those that are
    ``waiting`` for it, the first first: from each by itself, and from those together that fit
    together."""
    together = Need()
    for need in waiting:
        together = Need(*map(sum, zip(together, need, strict=True)))
        if not _apart(host, uses, need, other):
            return False
        if host.ever(uses, together) and not _apart(host, uses, together, other):
            return False
    return True


def _apart(host: Host, uses: dict[str, Use], need: Need, other: Need) -> bool:
    """Whether all that would be enough for one to fit is enough for both."""
    taken = [(resident, host.taken(name, uses)) for name, resident in host.residents.items()]
    bounds = (host.bounds.replicas, host.bounds.memory, host.bounds.gpu)
    for kind, most in enumerate(bounds):
        if most is None:
            continue
        used = sum(takes[kind] for resident, takes in taken if not resident.leaving)
        parts = [t[kind] for resident, t in taken if resident.movable and not resident.leaving]
        lacks = used + need[kind] - most
        if least(parts, lacks) < lacks + other[kind]:
            return False
    return True


def least(parts: Iterable[int], enough: int) -> int:
    """The smallest sum of some of these, or of none, that is ``enough``; where all of them together
    are not, just that."""
    if enough <= 0:
        return 0
    below, found = {0}, 0
    for part in parts:
        sums = {total + part for total in below}
        reach = [total for total in sums if total >= enough]
        found = min([*reach, found]) if found else min(reach, default=0)
        below |= {total for total in sums if total < enough}
        if len(below) > MOST_SUMS:
            return enough
    return found or enough
