"""What the launcher shows: progress as it happens, trouble, and the closing table.

On a terminal a line that turns tells what is being waited for; elsewhere there are plain lines
only, one an event. Quiet leaves out everything but trouble and the last word.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

from dev_opsgpt.launcher.purpose import Purpose
from dev_opsgpt.launcher.table import print_table


@dataclass(frozen=True)
class Row:
    """One line of the closing table: a model's names, what serves it, where, and how it is."""

    model: str
    served_by: str
    worker: str
    state: str


@dataclass(frozen=True)
class Example:
    """A model that can be asked, and what it is for."""

    model: str
    purpose: Purpose = "chat"


@dataclass(frozen=True)
class Closing:
    """The last word of a start. URLs; ``base_url`` is what clients are given."""

    rows: Sequence[Row]
    base_url: str | None
    controller: str
    logs: str
    needs_key: bool = False
    example: Example | None = None


_ASKED: dict[Purpose, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", {"messages": [{"role": "user", "content": "Hello!"}]}),
    "embeddings": ("/embeddings", {"input": "Hello!"}),
    "rerank": ("/rerank", {"query": "Hello!", "documents": ["Good morning!", "Farewell!"]}),
}


class Terminal(Console):
    """The console of a service: one whose reader has gone falls silent, and the service goes on."""

    def on_broken_pipe(self) -> None:
        """Nobody reads any more."""
        self.quiet = True


class Display:
    """Shows things on one console."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._status: Status | None = None

    def waiting(self, names: Iterable[str]) -> None:
        """Tells what is being waited for; nothing ends the wait."""
        text = ", ".join(names)
        text = text and f"starting {text}"
        if not text or self._quiet or not self._console.is_terminal:
            if self._status is not None:
                self._status.stop()
                self._status = None
        elif self._status is None:
            self._status = self._console.status(Text(text), spinner="dots")
            self._status.start()
        else:
            self._status.update(Text(text))

    def done(self, text: str) -> None:
        """Something works."""
        self._line("✓", "green", text, self._quiet)

    def note(self, text: str) -> None:
        """Something happened."""
        self._line("·", "dim", text, self._quiet)

    def trouble(self, text: str, details: Iterable[str] = ()) -> None:
        """Something does not work; ``details`` are the last lines of its log."""
        self._line("✗", "red", text, False)
        for line in details:
            self._console.print(Text(f"    {line}", style="dim"), soft_wrap=True)

    def closing(self, closing: Closing) -> None:
        """The table of models and addresses, and how to try it out."""
        self.waiting(())
        if self._quiet:
            self._print(_summary(closing))
            return
        self._print("")
        if closing.base_url:
            self._print(f"OpenAI API   {closing.base_url}", style="bold")
        self._print(f"controller   {closing.controller}")
        self._print(f"log files    {closing.logs}")
        if closing.rows:
            self._print("")
            cells = [(row.model, row.served_by, row.worker, row.state) for row in closing.rows]
            print_table(self._console, ("model", "served by", "worker", "state"), cells)
        if closing.base_url and closing.example:
            self._print("\nTry it:")
            self._print(curl_line(closing.base_url, closing.example, closing.needs_key))
        self._print("\nCtrl-C stops everything.")

    def _line(self, mark: str, style: str, text: str, hidden: bool) -> None:
        if not hidden:
            self._console.print(Text.assemble((mark, style), " ", text), soft_wrap=True)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)


def curl_line(base_url: str, example: Example, needs_key: bool = False) -> str:
    """A command that asks a model for what it is for, to be copied into a shell."""
    key = ' -H "Authorization: Bearer $OPENAI_API_KEY"' if needs_key else ""
    path, fields = _ASKED[example.purpose]
    body = json.dumps({"model": example.model, **fields}, ensure_ascii=False)
    quoted = body.replace("'", "'\\''")
    return f"curl {base_url}{path}{key} -H 'Content-Type: application/json' -d '{quoted}'"


def _summary(closing: Closing) -> str:
    there = [row for row in closing.rows if row.worker]
    models = ", ".join(f"{row.model} ({row.state})" for row in there) or "no models"
    return f"ready: {closing.base_url or closing.controller}: {models}"
