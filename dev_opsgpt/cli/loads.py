"""The commands that load models, and tell how far that has come."""

import time
from typing import Any

from rich.console import Console
from rich.text import Text

from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.cli.http import Api
from dev_opsgpt.launcher.table import print_table

HEADER = ("model", "state", "replicas", "memory", "progress")
LOOK = 0.3
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
    ``CliError`` with the reason where it cannot be loaded."""
    console = Console(stderr=True, highlight=False)
    row = api.post("/load_model", {"model_name": model})
    name = row["name"]
    with console.status(Text(f"{model}: starting")) as status:
        while row["phase"] not in ("loaded", "failed"):
            time.sleep(LOOK)
            row = next((one for one in standings(api) if one["name"] == name), None)
            if row is None or row["phase"] == "unloaded":
                raise CliError(f"{model} is not loaded, and nobody loads it any more.")
            status.update(Text(f"{model}: {progress(row)}"))
    if row["phase"] == "failed":
        raise CliError(f"{model} could not be loaded: {row['message']}")
    return f"{model} serves"


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
