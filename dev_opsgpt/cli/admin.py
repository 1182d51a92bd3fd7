"""What ``opsgpt keys`` does: calls to the admin API of the running gateway."""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import typer
from rich.console import Console

from dev_opsgpt.cli import places
from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.cli.http import TIMEOUT, Api
from dev_opsgpt.cli.key_text import HEADER, cells, print_json, print_new, print_one
from dev_opsgpt.config import Settings
from dev_opsgpt.launcher import runfile
from dev_opsgpt.launcher.table import print_table

KEY_NEEDED = "Give an admin key with --admin-key or in OPSGPT_ADMIN_KEY."
HASHED = "sha256:"
_ID = re.compile(r"key_[0-9a-f]{16}")
_SPAN = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class AdminApi(Api):
    """Calls to the admin API. Every method raises ``CliError``."""

    def patch(self, path: str, body: Any) -> Any:
        """The JSON answer of a PATCH."""
        return self._json("PATCH", path, body)

    def delete(self, path: str) -> Any:
        """The JSON answer of a DELETE."""
        return self._json("DELETE", path, None)

    def _json(self, method: str, path: str, body: Any) -> Any:
        with self._ask(method, path, body, httpx.Timeout(TIMEOUT)) as response:
            return json.loads(response.read())

    def keys(self, **filters: str) -> list[dict[str, Any]]:
        """The keys that match."""
        found: list[dict[str, Any]] = []
        query = httpx.QueryParams({**filters, "limit": "1000"})
        while True:
            page = self.get(f"/keys?{query}")
            found += page["data"]
            if not page["has_more"]:
                return found
            query = query.set("after", found[-1]["id"])

    def id_of(self, text: str) -> str:
        """The identifier of the key that is called so: by its identifier, or by its name where
        just one that is good has it."""
        if _ID.fullmatch(text):
            return text
        found = [row["id"] for row in self.keys(active="true") if row["name"] == text]
        if len(found) == 1:
            return str(found[0])
        many = f"{len(found)} keys are called '{text}'; name one by its identifier."
        raise CliError(many if found else f"No key that is good is called '{text}'.")


def gateway(
    config_dir: Path | None, url: str | None, admin_key: str | None
) -> tuple[str, str | None]:
    """The URL of the gateway, and what it is shown by an admin: at ``url``, else the running
    service's, else where the configuration puts it. Without ``admin_key``: a key of the
    configuration, else the cluster's secret. Raises ``CliError``."""
    settings = places.settings_of(config_dir)
    running = _running(settings)
    base = url or (running.gateway if running is not None else None) or settings.gateway_address
    base = base.rstrip("/").removesuffix("/v1")
    key = admin_key or _configured(settings)
    # The secret is for nobody but our own gateway, whoever else listens at the URL.
    if key is None and running is not None and base == running.gateway:
        key = running.secret
    if key is None and url is None and settings.secret is not None:
        key = settings.secret.get_secret_value()
    return base, key


def find(config_dir: Path | None, url: str | None, admin_key: str | None) -> AdminApi:
    """The admin API of the gateway that ``gateway`` finds."""
    base, key = gateway(config_dir, url, admin_key)
    return AdminApi(f"{base}/admin", key, KEY_NEEDED)


def terms(
    *,
    models: list[str] | None,
    all_models: bool = False,
    expires: str | None,
    rpm: str | None,
    tpm: str | None,
    concurrent: str | None,
    budget: str | None,
    **plain: Any,
) -> dict[str, Any]:
    """The body of a creation or change, from what was typed; what was not typed is left out."""
    body = {name: value for name, value in plain.items() if value is not None}
    if models and all_models:
        raise CliError("--model and --all-models contradict each other.")
    if models or all_models:
        body["models"] = models or None
    for name, text in (("rpm", rpm), ("tpm", tpm), ("concurrent", concurrent)):
        if text is not None:
            body[name] = _number(f"--{name}", text, int)
    if budget is not None:
        body["budget"] = _number("--budget", budget, float)
    if expires is not None:
        body["expires_at"] = _moment(expires)
    return body


def seconds(option: str, text: str) -> int:
    """A span of time such as 90s, 12h or 30d."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise CliError(f"{option}: '{text}' is no time such as 90s, 15m, 12h, 30d or 2w.")
    return int(match[1]) * _SECONDS[match[2]]


def create(api: AdminApi, body: dict[str, Any], as_json: bool) -> None:
    """Makes a key and prints it."""
    print_new(api.post("/keys", body), as_json)


def show_all(api: AdminApi, owner: str | None, ended: bool, as_json: bool) -> None:
    """Prints the keys."""
    filters = {} if owner is None else {"owner": owner}
    rows = api.keys(**filters, **({} if ended else {"active": "true"}))
    if as_json:
        print_json(rows)
    elif not rows:
        none = "There are no keys" if ended else "No key is good now (--all shows those that ended)"
        raise CliError(f"{none}. Make one with: opsgpt keys create")
    else:
        print_table(Console(highlight=False), HEADER, [cells(row) for row in rows])


def show(api: AdminApi, key: str, as_json: bool) -> None:
    """Prints one key."""
    print_one(api.get(f"/keys/{api.id_of(key)}"), as_json)


def update(api: AdminApi, key: str, body: dict[str, Any], as_json: bool) -> None:
    """Changes a key and prints it."""
    if not body:
        raise CliError("There is nothing to change; see: opsgpt keys update --help")
    print_one(api.patch(f"/keys/{api.id_of(key)}", body), as_json)


def rotate(api: AdminApi, key: str, grace: int, as_json: bool) -> None:
    """Gives a key a new text and prints it."""
    print_new(api.post(f"/keys/{api.id_of(key)}/rotate", {"grace": grace}), as_json)


def revoke(api: AdminApi, key: str, as_json: bool) -> None:
    """Ends a key."""
    row = api.delete(f"/keys/{api.id_of(key)}")
    if as_json:
        print_json(row)
    else:
        typer.echo(f"{row['id']} is revoked.")


def _running(settings: Settings) -> runfile.Running | None:
    folder = settings.origin.config_dir
    try:
        return runfile.read(runfile.run_file(folder)) if folder is not None else None
    except OSError:
        return None


def _configured(settings: Settings) -> str | None:
    keys = [key.get_secret_value() for key in settings.gateway.admin_keys]
    return next((key for key in keys if not key.startswith(HASHED)), None)


def _number(option: str, text: str, kind: type[int] | type[float]) -> float | None:
    if text.lower() == "none":
        return None
    try:
        return kind(text)
    except ValueError:
        raise CliError(f"{option}: '{text}' is neither a number nor 'none'.") from None


def _moment(text: str) -> float | None:
    """Unix time of a span from now, or of a date in UTC."""
    if text.lower() in ("never", "none"):
        return None
    if _SPAN.fullmatch(text):
        return time.time() + seconds("--expires", text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        wrong = f"--expires: '{text}' is no time such as 30d, no date such as 2030-12-31, not never"
        raise CliError(wrong) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
