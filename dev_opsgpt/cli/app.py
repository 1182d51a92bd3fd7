"""The commands of ``opsgpt``. What a command needs is imported when it runs, so that ``--help``
is quick."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dev_opsgpt.cli.keys import app as keys_app

Config = Annotated[
    Path | None, typer.Option("--config", metavar="DIR", help="Folder of the configuration.")
]
Url = Annotated[str | None, typer.Option(help="Base URL of the OpenAI API.")]
Key = Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="Key for it.")]
Controller = Annotated[str | None, typer.Option(metavar="URL", help="URL of the controller.")]

app = typer.Typer(
    help="OpsGPT Serve: local models and online providers behind one OpenAI-compatible port.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(keys_app, name="keys")


@app.command()
def start(
    config: Config = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show trouble only.")] = False,
) -> None:
    """Start everything that the configuration names, as python start.py does."""
    from dev_opsgpt.launcher.interrupts import plain_interrupts

    with plain_interrupts():
        from dev_opsgpt.launcher.command import launch
        from dev_opsgpt.launcher.plan import Selection

    raise typer.Exit(launch(config, Selection(), quiet=quiet))


@app.command()
def models(
    status: Annotated[
        bool, typer.Option("--status", "-s", help="Where each local model stands.")
    ] = False,
    config: Config = None,
    url: Url = None,
    key: Key = None,
    controller: Controller = None,
) -> None:
    """List the models that can be asked for, one name a line."""
    from dev_opsgpt.cli import loads, places

    if status:
        loads.show(places.controller(config, controller))
        return
    for name in places.gateway(config, url, key).models():
        typer.echo(name)


@app.command()
def load(
    model: Annotated[str, typer.Argument(help="The model to load.")],
    config: Config = None,
    controller: Controller = None,
) -> None:
    """Load a local model of the configuration, which stays then. Shows how far it has come."""
    from dev_opsgpt.cli import loads, places

    typer.echo(loads.load(places.controller(config, controller), model))


@app.command()
def unload(
    model: Annotated[str, typer.Argument(help="The model to unload.")],
    config: Config = None,
    controller: Controller = None,
) -> None:
    """Unload a local model until it is needed again. Answers in flight end."""
    from dev_opsgpt.cli import loads, places

    api = places.controller(config, controller)
    typer.echo(loads.told(api.post("/unload_model", {"model_name": model})))


@app.command()
def scale(
    model: Annotated[str, typer.Argument(help="The model.")],
    replicas: Annotated[int, typer.Argument(min=1, max=1024, help="How many there shall be.")],
    config: Config = None,
    controller: Controller = None,
) -> None:
    """Have a local model served by so many replicas from now on. Answers in flight end."""
    from dev_opsgpt.cli import loads, places

    api = places.controller(config, controller)
    body = {"model_name": model, "replicas": replicas}
    typer.echo(loads.told(api.post("/scale_model", body)))


@app.command()
def workers(config: Config = None, controller: Controller = None) -> None:
    """List the workers: their models, addresses and load; and what is being loaded."""
    from dev_opsgpt.cli.workers import show

    show(config, controller)


@app.command()
def release(
    model: Annotated[str, typer.Argument(help="The model to stop.")],
    new: Annotated[str | None, typer.Option(metavar="NAME", help="Start this one first.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Start --new, and keep MODEL.")] = False,
    config: Config = None,
    controller: Controller = None,
) -> None:
    """Stop a model, or replace it by another, while the service runs. Answers in flight end."""
    from dev_opsgpt.cli.workers import release as carry_out

    typer.echo(carry_out(config, controller, model, new, keep))


@app.command()
def reload(config: Config = None) -> None:
    """Have the running service take the configuration as it is now, and tell what came of it. Exit
    code 1: not all of it could be done."""
    from dev_opsgpt.cli.reload import reload as carry_out

    if not carry_out(config, typer.echo):
        raise typer.Exit(1)


@app.command()
def usage(
    since: Annotated[
        str | None, typer.Option(help="7d, 24h, or a date in UTC. [default: 30d]")
    ] = None,
    until: Annotated[str | None, typer.Option(help="The same; left out: now.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help="key, owner, model, served, replica, status, day or hour; may be repeated.",
        ),
    ] = None,
    key_id: Annotated[str | None, typer.Option(help="Only this key's.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only this model.")] = None,
    status: Annotated[str | None, typer.Option(help="Only this status: 429, 5xx.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write CSV; - prints it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    records: Annotated[bool, typer.Option("--records", help="Every request, with --csv.")] = False,
    config: Config = None,
    url: Url = None,
    key: Annotated[str | None, typer.Option(help="Your own key, to see what it used.")] = None,
    admin_key: Annotated[
        str | None,
        typer.Option(
            envvar="OPSGPT_ADMIN_KEY", help="An admin key; not needed where the service runs."
        ),
    ] = None,
) -> None:
    """Show what was used: requests, tokens, cost and times."""
    from dev_opsgpt.cli import usage as use

    filters = {"since": since, "until": until, "key": key_id, "owner": owner}
    question = use.Question(filters | {"model": model, "status": status}, by or (), records)
    api = use.find(config, url, admin_key, key)
    if csv is not None:
        use.save(api, question, csv)
    elif json:
        use.show_json(api, question)
    else:
        use.show(api, question)


@app.command()
def chat(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Whom to talk to.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    config: Config = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Talk to a model. With input from a pipe: ask that, write the answer, end."""
    from dev_opsgpt.cli import chat as chats
    from dev_opsgpt.cli import places

    api = places.gateway(config, url, key)
    preferred = places.settings_of(config).llm_model if url is None else ""
    name = chats.pick_model(api, model, preferred)
    talk = chats.Chat(api, name, system, chats.write_safely)
    if not sys.stdin.isatty():
        text = sys.stdin.read().strip()
        if text:
            talk.ask(text)
        return
    import readline  # noqa: F401 - its import gives input() line editing and a history

    typer.echo(f"{name} at your service.")
    chats.converse(talk, lambda: input(chats.PROMPT), typer.echo)


@config_app.command()
def check(config: Config = None) -> None:
    """Tell what is wrong with the configuration, and how to mend it. Exit code 1: it cannot be
    used."""
    from dev_opsgpt.config import ConfigError, check_settings, load_settings

    try:
        settings = load_settings(config)
        problems = check_settings(settings)
    except ConfigError as error:
        problems = list(error.problems)
    for problem in problems:
        typer.echo(f"{problem.severity}: {problem}", err=True)
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(1)
    typer.echo(f"The configuration in {settings.origin.config_dir} can be used.")


@config_app.command("show")
def show_config(config: Config = None) -> None:
    """Print the configuration in effect as JSON, without its secrets."""
    import json

    from dev_opsgpt.cli import places
    from dev_opsgpt.config import masked_dump

    dump = masked_dump(places.settings_of(config))
    typer.echo(json.dumps(dump, indent=2, ensure_ascii=False))


def main() -> None:
    """The console script. What a command cannot do is one line on standard error, exit code 1."""
    from dev_opsgpt.cli.errors import CliError

    try:
        app()
    except CliError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)
