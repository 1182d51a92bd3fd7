"""The commands that load models, and tell how far that has come."""

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.cli.http import Api
from dev_opsgpt.launcher.table import print_table

HEADER = ("model", "state", "replicas", "memory", "progress")
LOOK = 0.3
# A controller that is started again knows all models again within so many seconds.
AWAY = 10.0
# A process that has died so often before it served is waited for no longer.
KEEPS_DYING = 3
_MIB = 2**20


def show(api: Api) -> None:
    """Prints where each local model stands. Raises ``CliError``."""
    rows = standings(api)
    if not rows:
        raise CliError("No launcher that is connected has local models.")
    print_table(Console(highlight=False), HEADER, [_cells(row) for row in rows])


def standings(api: Api) -> list[dict[str, Any]]:
    """What the controller tells of the launchers' models."""
    found: list[dict[str, Any]] = api.get("/models")["models"]
    return found


def load(api: Api, model: str) -> str:
    """Loads a model; a word when it serves. On a terminal it is shown how far it has come. Raises
    ``CliError`` with the reason where it cannot be loaded, or somebody has called that off."""
    console = Console(stderr=True, highlight=False)
    first = api.post("/load_model", {"model_name": model})
    waits = ""
    with console.status(Text(f"{model}: starting")) as status:
        for row in _follow(api, first):
            if row["phase"] == "loaded":
                return f"{model} serves"
            why = _given_up(row, waits)
            if why is not None:
                raise CliError(f"{model} {why}")
            waits = row["message"] if row["phase"] == "waiting" else ""
            status.update(Text(f"{model}: {progress(row)}"))
    raise CliError(f"{model} is not loaded: the controller does not know it any more.")


def _given_up(row: dict[str, Any], waits: str) -> str | None:
    """Why nobody loads a model any more, None while somebody does. ``waits`` is what it was last
    seen to wait for."""
    phase, message = row["phase"], row["message"]
    if phase == "failed":
        return f"could not be loaded: {message}"
    if phase == "restarting" and row["deaths"] >= KEEPS_DYING:
        return f"does not serve: {message}; it has died {row['deaths']} times now"
    if phase == "unloaded":
        why = message or waits
        return "is not loaded, and nobody loads it any more" + (f": {why}" if why else "")
    return None


def _follow(api: Api, first: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Where a model stands, again and again. A controller that is away for a moment is waited for,
    and one that is back until its launchers are. Raises ``CliError``; ends where the model is not
    known any more."""
    row: dict[str, Any] | None = first
    seen, away = time.monotonic(), None
    while row is not None or time.monotonic() - seen < AWAY:
        if row is not None:
            yield row
            seen = time.monotonic()
        time.sleep(LOOK)
        row, away = _look(api, first["name"])
    if away is not None:
        raise away


def _look(api: Api, name: str) -> tuple[dict[str, Any] | None, CliError | None]:
    """Where a model stands, or why nobody can say."""
    try:
        return next((one for one in standings(api) if one["name"] == name), None), None
    except CliError as error:
        return None, error


def told(reply: dict[str, Any]) -> str:
    """A word about what was done. Raises ``CliError`` where it was not."""
    if reply["code"] != 200:
        raise CliError(reply["msg"])
    return str(reply["msg"])


def progress(row: dict[str, Any]) -> str:
    """How far a load has come, or why it does not go on: ``loading the weights 42% (3 s)``."""
    if row["phase"] != "loading":
        return str(row["message"] or row["phase"])
    words = [row["doing"] or "starting"]
    if row["fraction"] is not None:
        words.append(f"{row['fraction']:.0%}")
    if row["seconds"] is not None:
        words.append(f"({row['seconds']:.0f} s)")
    return " ".join(words)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    shown = row["message"] or row["phase"] in ("loading", "waiting", "failed", "restarting")
    return (
        ", ".join(row["names"]),
        row["phase"],
        str(row["replicas"]),
        f"{row['memory'] / _MIB:.0f} MiB" if row["memory"] else "-",
        progress(row) if shown else "",
    )
