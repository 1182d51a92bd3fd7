"""Where replicas stand in the list of candidates, remembered from one request to the next, so that
a policy finds one by its address without a look at all the others."""

from collections.abc import Sequence

from dev_opsgpt.routing.candidate import C


class Roster:
    """The replicas that were seen among a model's candidates, until they are forgotten."""

    __slots__ = ("_places", "_turn")

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._turn = 0

    def __contains__(self, address: str) -> bool:
        return address in self._places

    def newcomers(self, candidates: Sequence[C]) -> list[str]:
        """The addresses that were not seen before, from now on known.

        All candidates are looked at only where there is a sign of a new one: more of them than are
        known, or an unknown one at the end, where new ones register, or at the one place that is
        checked in turn. So any is found within as many calls as there are candidates.
        """
        count = len(candidates)
        places = self._places
        self._turn += 1
        if (
            count <= len(places)
            and candidates[-1].address in places
            and candidates[self._turn % count].address in places
        ):
            return []
        found = [c.address for c in candidates if c.address not in places]
        places.update({candidate.address: place for place, candidate in enumerate(candidates)})
        return found

    def find(self, candidates: Sequence[C], address: str) -> C | None:
        """The candidate with this address. Where others before it are left out it has moved, is
        searched for, and its new place remembered."""
        place = self._places.get(address, -1)
        if 0 <= place < len(candidates) and candidates[place].address == address:
            return candidates[place]
        for place, candidate in enumerate(candidates):
            if candidate.address == address:
                self._places[address] = place
                return candidate
        return None

    def forget(self, address: str) -> None:
        """Makes a replica unknown again."""
        self._places.pop(address, None)
