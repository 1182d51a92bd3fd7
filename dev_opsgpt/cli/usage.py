"""The command that asks the gateway what was used."""

import contextlib
import json
import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import typer
from rich.console import Console

from dev_opsgpt.cli import admin
from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.cli.http import PATIENT, Api
from dev_opsgpt.launcher.table import print_table

STDOUT = "-"
WIDEST = 60
# Of a report's figures, those that a line of a terminal has room for, and their headings.
SHOWN = {
    "requests": "requests",
    "errors": "errors",
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "completion_tokens": "completion",
    "cost": "cost",
    "first_token_mean": "first token",
    "first_token_p95": "p95",
    "duration_mean": "duration",
}


@dataclass(frozen=True)
class Question:
    """What is asked for; the gateway checks the values. ``filters`` may hold None for none."""

    filters: Mapping[str, str | None]
    by: Sequence[str] = ()
    records: bool = False

    def path(self, form: str) -> str:
        """Path and query of the answer in a form, ``json`` or ``csv``."""
        pairs = [(name, value) for name, value in self.filters.items() if value is not None]
        pairs += [("group_by", name) for name in self.by]
        route = "/usage/records" if self.records else "/usage"
        return f"{route}?{urlencode([*pairs, ('format', form)])}"


class UsageApi(Api):
    """Calls to the gateway. Every method raises ``CliError``."""

    def download(self, path: str) -> Generator[bytes, None, None]:
        """The pieces of a GET's answer, however long it takes."""
        with self._ask("GET", path, None, PATIENT) as response:
            yield from response.iter_bytes()

    def report(self, question: Question) -> dict[str, Any]:
        """The gateway's report; a large one takes seconds."""
        if question.records:
            raise CliError("--records needs --csv FILE: there may be many.")
        data = b"".join(self.download(question.path("json")))
        try:
            found: dict[str, Any] = json.loads(data)
        except ValueError:
            found = {}
        if found.get("object") != "usage.report":
            raise CliError("The gateway does not report its usage as this release does.")
        return found


def find(
    config_dir: Path | None, url: str | None, admin_key: str | None, key: str | None
) -> UsageApi:
    """The gateway at ``url``, else of the running service, else where the configuration puts it.
    With a client's ``key`` that key's own usage is seen; without, an admin key is found as ``opsgpt
    keys`` does."""
    base, admin_token = admin.gateway(config_dir, url, admin_key)
    return UsageApi(f"{base}/v1", key or admin_token, admin.KEY_NEEDED)


def show(api: UsageApi, question: Question) -> None:
    """Prints a report as a table. Raises ``CliError``."""
    report = api.report(question)
    header = [*report["group_by"], *SHOWN.values()]
    names = [*report["group_by"], *SHOWN]
    rows = [[_text(row[name]) for name in names] for row in report["data"]]
    if not rows:
        raise CliError("There are no such records.")
    print_table(Console(highlight=False), header, rows)


def show_json(api: UsageApi, question: Question) -> None:
    """Prints a report as the gateway gave it. Raises ``CliError``."""
    typer.echo(json.dumps(api.report(question), indent=2, ensure_ascii=False))


def save(api: UsageApi, question: Question, target: str) -> None:
    """Writes the answer as CSV into a file, which is there only when it is whole; ``-`` is
    standard output. Raises ``CliError``."""
    pieces = api.download(question.path("csv"))
    if target == STDOUT:
        sys.stdout.buffer.writelines(pieces)
        sys.stdout.buffer.flush()
        return
    try:
        _write(Path(target), pieces)
    except OSError as error:
        raise CliError(f"{target} cannot be written: {error.strerror or error}") from None


def _write(target: Path, pieces: Iterable[bytes]) -> None:
    unfinished = target.with_name(f"{target.name}.part")
    try:
        # Who used what is not for every user of the machine.
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.writelines(pieces)
        unfinished.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.2f}"
    # A client's words must not move the cursor, nor fill the screen.
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
