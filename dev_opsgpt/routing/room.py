"""Whether there is room for a model on a launcher, and who would have to go for it. Pure."""

from collections.abc import Collection, Iterable, Sequence

from dev_opsgpt.routing.cards import Card
from dev_opsgpt.routing.residents import Need, Residents
from dev_opsgpt.routing.turns import harmless

# A model that turned out to be at work when it was to be unloaded is let alone for so long.
BUSY_FOR = 1.0
_GIB = 2**30


class Room:
    """Looks at what is loaded. ``now`` is in monotonic seconds."""

    def __init__(self, residents: Residents) -> None:
        self._residents = residents
        self._kept: dict[tuple[str, str], float] = {}

    def keep(self, launcher: str, model: str, now: float) -> None:
        """Lets a model alone for a moment: it was at work, or would not go."""
        self._kept[launcher, model] = now + BUSY_FOR

    def fits(self, launcher: str, needs: Iterable[Need], without: Collection[str] = ()) -> bool:
        """Whether there is room for all of it together, were some models not there."""
        return self._residents.hosts[launcher].fits(self._residents.uses, needs, without)

    def idle(self, launcher: str, now: float) -> list[str]:
        """What may be unloaded, the least recently used first."""
        self._kept = {key: until for key, until in self._kept.items() if now < until}
        there = self._residents.hosts[launcher].residents
        found = [
            name
            for name, resident in there.items()
            if resident.movable
            and (launcher, name) not in self._kept
            and self._residents.idle(resident, now)
        ]
        return sorted(found, key=lambda name: there[name].last)

    def victims(self, launcher: str, needs: Iterable[Need], now: float) -> list[str] | None:
        """The idle models to unload for what is needed, the least recently used first; none where
        what leaves already is enough; None where there are not enough."""
        needs = tuple(needs)
        there = self._residents.hosts[launcher].residents
        leaving = [name for name, resident in there.items() if resident.leaving]
        chosen: list[str] = []
        for name in self.idle(launcher, now):
            if self.fits(launcher, needs, (*leaving, *chosen)):
                break
            chosen.append(name)
        if not self.fits(launcher, needs, (*leaving, *chosen)):
            return None
        for name in list(chosen):
            rest = [other for other in chosen if other != name]
            if self.fits(launcher, needs, (*leaving, *rest)):
                chosen = rest
        return chosen

    def ever(self, launcher: str, need: Need) -> bool:
        """Whether there would be room if all went that may."""
        return self._residents.hosts[launcher].ever(self._residents.uses, need)

    def harmless(self, launcher: str, waiting: Sequence[Need], other: Need) -> bool:
        """Whether something may be loaded there before those that have waited for longer."""
        return harmless(self._residents.hosts[launcher], self._residents.uses, waiting, other)

    def in_use(self, launcher: str) -> str:
        """Why there is no room now, in words."""
        host = self._residents.hosts[launcher]
        most = []
        if host.bounds.replicas is not None:
            most.append(f"at most {host.bounds.replicas} may be loaded")
        if host.bounds.memory is not None:
            most.append(f"at most {host.bounds.memory / _GIB:.2f} GiB")
        if host.bounds.gpu is not None:
            most.append(f"at most {host.bounds.gpu / _GIB:.2f} GiB of the GPUs' memory")
        return f"{', '.join(sorted(host.residents))} are in use, and {' and '.join(most)}"

    def too_large(self, launcher: str, card: Card) -> str:
        """Why there never is, in words."""
        host = self._residents.hosts[launcher]
        bounds = host.bounds
        if bounds.replicas is not None and card.replicas > bounds.replicas:
            return f"it has {card.replicas} replicas, and max_loaded_models is {bounds.replicas}"
        need = host.need(card)
        if bounds.memory is not None and need.memory > bounds.memory:
            return (
                f"it needs about {need.memory / _GIB:.2f} GiB, and max_loaded_memory is "
                f"{bounds.memory / _GIB:.2f} GiB"
            )
        if bounds.gpu is not None and need.gpu > bounds.gpu:
            return (
                f"it needs about {need.gpu / _GIB:.2f} GiB of the GPUs' memory, and "
                f"max_loaded_gpu_memory is {bounds.gpu / _GIB:.2f} GiB"
            )
        return "the models that always stay loaded leave no room for it"
