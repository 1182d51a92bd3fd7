"""The commands that ask the controller."""

from pathlib import Path
from typing import Any

from rich.console import Console

from dev_opsgpt.cli import loads, places
from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.launcher.table import print_table

HEADER = ("address", "models", "kind", "running", "waiting", "state", "context", "can")
COMING = ("loading", "waiting", "restarting")
ABILITIES = (("tools", "tools"), ("vision", "vision"), ("json_output", "json"))


def show(config_dir: Path | None, controller: str | None) -> None:
    """Prints the controller's table. Raises ``CliError``."""
    api = places.controller(config_dir, controller)
    rows = [_cells(row) for row in api.get("/list_workers")["workers"]]
    rows += [_coming(row) for row in loads.standings(api) if row["phase"] in COMING]
    if not rows:
        raise CliError("No worker is registered.")
    print_table(Console(highlight=False), HEADER, rows)


def _coming(row: dict[str, Any]) -> tuple[str, ...]:
    """A model that is being loaded."""
    return ("-", ", ".join(row["names"]), "opsgpt", "-", "-", loads.progress(row), "?", "-")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["address"],
        ", ".join(row["models"]),
        row["kind"],
        f"{row['running']}/{row['limit']}",
        str(row["waiting"]),
        "draining" if row["draining"] else "ready",
        str(row.get("context_length") or "?"),
        _abilities(row),
    )


def _abilities(row: dict[str, Any]) -> str:
    """What a worker's models can do, what is not known with a question mark."""
    known = [(word, row.get(name)) for name, word in ABILITIES]
    words = [word if can else f"{word}?" for word, can in known if can is not False]
    return ",".join(words) or "-"


def release(
    config_dir: Path | None, controller: str | None, model: str, new: str | None, keep: bool
) -> str:
    """Stops, starts or replaces a model; a word about what was done. Raises ``CliError``."""
    if keep and new is None:
        raise CliError("--keep needs --new: there is nothing to start and nothing to stop.")
    body = {"model_name": model, "new_model_name": new, "keep_origin": keep}
    reply = places.controller(config_dir, controller).post("/release_worker", body)
    if reply["code"] != 200:
        raise CliError(reply["msg"])
    return str(reply["msg"])
