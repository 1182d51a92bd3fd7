"""``opsgpt keys``: the commands and their options. What they do is in ``cli/admin.py``."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None, typer.Option("--config", metavar="DIR", help="Folder of the configuration.")
]
Url = Annotated[str | None, typer.Option(metavar="URL", help="URL of the gateway.")]
AdminKey = Annotated[
    str | None,
    typer.Option(
        envvar="OPSGPT_ADMIN_KEY",
        help="An admin key; not needed where the service runs.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The key's identifier, or its name.")]
Name = Annotated[str | None, typer.Option(help="What people call it.")]
Owner = Annotated[str | None, typer.Option(help="Whom it is for.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="MODEL", help="A model it may ask; may be repeated."),
]
Priority = Annotated[int | None, typer.Option(help="Higher waits less.")]
Rpm = Annotated[str | None, typer.Option(metavar="N|none", help="Requests a minute.")]
Tpm = Annotated[str | None, typer.Option(metavar="N|none", help="Tokens a minute.")]
Concurrent = Annotated[str | None, typer.Option(metavar="N|none", help="Requests at once.")]
Budget = Annotated[
    str | None, typer.Option(metavar="X|none", help="What it may spend in a period.")
]
BudgetPeriod = Annotated[str | None, typer.Option(metavar="total|day|month", help="The period.")]
Expires = Annotated[
    str | None,
    typer.Option(metavar="30d|DATE|never", help="When it ends: 12h, 30d, 2030-12-31 (UTC)."),
]

app = typer.Typer(help="Make and manage clients' keys, with limits.", no_args_is_help=True)


@app.command()
def create(
    name: Name = None,
    owner: Owner = None,
    model: Models = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrent: Concurrent = None,
    budget: Budget = None,
    budget_period: BudgetPeriod = None,
    expires: Expires = None,
    priority: Priority = None,
    json: Json = False,
    config: Config = None,
    url: Url = None,
    admin_key: AdminKey = None,
) -> None:
    """Make a key. It is shown once, and kept as a hash only."""
    from dev_opsgpt.cli import admin

    terms = admin.terms(
        name=name,
        owner=owner,
        models=model,
        priority=priority,
        rpm=rpm,
        tpm=tpm,
        concurrent=concurrent,
        budget=budget,
        budget_period=budget_period,
        expires=expires,
    )
    admin.create(admin.find(config, url, admin_key), terms, json)


@app.command("list")
def list_keys(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    all_keys: Annotated[bool, typer.Option("--all", help="Those that have ended too.")] = False,
    json: Json = False,
    config: Config = None,
    url: Url = None,
    admin_key: AdminKey = None,
) -> None:
    """List the keys, with what each uses of its limits now."""
    from dev_opsgpt.cli import admin

    admin.show_all(admin.find(config, url, admin_key), owner, all_keys, json)


@app.command()
def show(
    key: Id,
    json: Json = False,
    config: Config = None,
    url: Url = None,
    admin_key: AdminKey = None,
) -> None:
    """Show one key: all but its text."""
    from dev_opsgpt.cli import admin

    admin.show(admin.find(config, url, admin_key), key, json)


@app.command()
def update(
    key: Id,
    name: Name = None,
    owner: Owner = None,
    model: Models = None,
    all_models: Annotated[
        bool, typer.Option("--all-models", help="It may ask every model.")
    ] = False,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrent: Concurrent = None,
    budget: Budget = None,
    budget_period: BudgetPeriod = None,
    expires: Expires = None,
    priority: Priority = None,
    json: Json = False,
    config: Config = None,
    url: Url = None,
    admin_key: AdminKey = None,
) -> None:
    """Change what is given; the rest stays. "none" takes a limit away."""
    from dev_opsgpt.cli import admin

    terms = admin.terms(
        name=name,
        owner=owner,
        models=model,
        all_models=all_models,
        priority=priority,
        rpm=rpm,
        tpm=tpm,
        concurrent=concurrent,
        budget=budget,
        budget_period=budget_period,
        expires=expires,
    )
    admin.update(admin.find(config, url, admin_key), key, terms, json)


@app.command()
def rotate(
    key: Id,
    grace: Annotated[
        str, typer.Option(metavar="1h", help="How long the old one stays good.")
    ] = "0s",
    json: Json = False,
    config: Config = None,
    url: Url = None,
    admin_key: AdminKey = None,
) -> None:
    """Give a key a new text; limits and usage stay. The new one is shown once."""
    from dev_opsgpt.cli import admin

    seconds = admin.seconds("--grace", grace)
    admin.rotate(admin.find(config, url, admin_key), key, seconds, json)


@app.command()
def revoke(
    key: Id,
    json: Json = False,
    config: Config = None,
    url: Url = None,
    admin_key: AdminKey = None,
) -> None:
    """End a key for ever, within a second."""
    from dev_opsgpt.cli import admin

    admin.revoke(admin.find(config, url, admin_key), key, json)
