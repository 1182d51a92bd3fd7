"""How ``opsgpt keys`` shows keys."""

import json
from datetime import UTC, datetime
from typing import Any

import typer

HEADER = ("id", "key", "name", "owner", "models", "rpm", "tpm", "at once", "budget", "state")


def print_new(row: dict[str, Any], as_json: bool) -> None:
    """Prints a key that was just made, and nothing else on standard output."""
    if as_json:
        print_json(row)
        return
    typer.echo(row["key"])
    typer.echo(f"This is {row['id']}. Keep it now: it is not shown again.", err=True)


def print_one(row: dict[str, Any], as_json: bool) -> None:
    """Prints all there is about a key."""
    if as_json:
        print_json(row)
        return
    used = row["used"]
    moments = ("expires_at", "created_at", "rotated_at", "revoked_at", "old_until")
    lines = {
        "id": row["id"],
        "key": f"{row['prefix']}...",
        "state": _state(row),
        "name": row["name"],
        "owner": row["owner"],
        "models": ", ".join(row["models"]) if row["models"] is not None else "all",
        "priority": str(row["priority"]),
        "requests a minute": _of(used["requests"], row["rpm"]),
        "tokens a minute": _of(used["tokens"], row["tpm"]),
        "requests at once": _of(used["concurrent"], row["concurrent"]),
        "budget": _budget(row),
        **{name: _date(row[name]) for name in moments if row[name] is not None},
    }
    for name, text in lines.items():
        typer.echo(f"{name:<18} {text}")


def print_json(value: Any) -> None:
    """Prints what the API gave."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A key as a line of the table."""
    used = row["used"]
    return (
        row["id"],
        f"{row['prefix']}...",
        row["name"] or "-",
        row["owner"] or "-",
        ", ".join(row["models"]) if row["models"] is not None else "all",
        _of(used["requests"], row["rpm"]),
        _of(used["tokens"], row["tpm"]),
        _of(used["concurrent"], row["concurrent"]),
        _budget(row),
        _state(row),
    )


def _of(used: float | None, limit: float | None) -> str:
    return "-" if limit is None else f"{used or 0:g}/{limit:g}"


def _budget(row: dict[str, Any]) -> str:
    if row["budget"] is None:
        return "-"
    period = "" if row["budget_period"] == "total" else f" a {row['budget_period']}"
    return f"{row['used']['spent'] or 0:.4g}/{row['budget']:g}{period}"


def _state(row: dict[str, Any]) -> str:
    if row["active"]:
        return f"until {_date(row['expires_at'])}" if row["expires_at"] else "active"
    return "revoked" if row["revoked_at"] is not None else "expired"


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
