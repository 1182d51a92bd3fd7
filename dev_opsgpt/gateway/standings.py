"""Where the models of the launchers stand, as the controller has told last."""

from collections.abc import Callable, Iterable

from dev_opsgpt.routing.cards import Standing

# A controller that was away knows no model until its launchers have come back to it.
DOUBTED = 10.0
_SHOWN = {
    "loaded": "loaded",
    "loading": "loading",
    "waiting": "loading",
    "restarting": "loading",
    "failed": "failed",
}


class Standings:
    """The models by the names that clients use. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._standings: dict[str, Standing] = {}
        self._missing: dict[str, float] = {}

    def get(self, model: str) -> Standing | None:
        """Where a model stands, None for one that nobody knows."""
        return self._standings.get(model)

    def take(self, standings: Iterable[Standing]) -> None:
        """The controller has told where the launchers' models stand."""
        found = {name: standing for standing in standings for name in standing.names}
        now = self._clock()
        gone = self._standings.keys() - found.keys()
        since = {name: self._missing.get(name, now) for name in gone}
        self._missing = {name: at for name, at in since.items() if now - at < DOUBTED}
        self._standings = found | {name: self._standings[name] for name in self._missing}

    def names(self) -> list[str]:
        """The names of models that a request would be answered by, or loads."""
        now = self._clock()
        for name in [name for name, at in self._missing.items() if now - at >= DOUBTED]:
            del self._missing[name], self._standings[name]
        return [name for name, standing in self._standings.items() if standing.loadable]

    def loadable(self, model: str) -> bool:
        """Whether a request for the model may load it."""
        standing = self._standings.get(model)
        return standing is not None and standing.loadable

    def shown(self, model: str, serves: bool) -> dict[str, object]:
        """What a client is told of where a model stands: ``status``, ``progress`` while it loads,
        and ``reason`` where it has failed."""
        standing = self._standings.get(model)
        if serves or standing is None:
            return {"status": "loaded" if serves else "unloaded"}
        shown: dict[str, object] = {"status": _SHOWN.get(standing.phase, "unloaded")}
        if standing.phase == "failed":
            shown["reason"] = standing.message
        if standing.phase == "loading":
            shown["progress"] = {
                "phase": standing.doing or "starting",
                "fraction": standing.fraction,
                "seconds": standing.seconds,
            }
        return shown
