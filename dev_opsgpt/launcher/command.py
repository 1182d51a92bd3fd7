"""What ``start.py``, ``llm_api.py`` and ``opsgpt start`` have in common: from flags to a running
service and its exit code."""

import asyncio
import contextlib
import io
import os
import secrets
import socket
import sys
from pathlib import Path

from dev_opsgpt.config import ConfigError, Problem, Settings, check_settings, load_settings
from dev_opsgpt.launcher import runfile
from dev_opsgpt.launcher.display import Display, Terminal
from dev_opsgpt.launcher.local import Launcher
from dev_opsgpt.launcher.plan import LaunchPlan, Selection, make_plan
from dev_opsgpt.launcher.ports import taken

_MODEL_TABLES = ("llm_model_dict[", "VLLM_MODEL_DICT[")


def launch(config_dir: Path | None, selection: Selection, *, quiet: bool = False) -> int:
    """Starts what is selected and stays until it is stopped. Gives the exit code: 0 after a stop
    that was asked for, 1 when the start failed, whose reason has then been shown."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a sign shows "?" instead of ending the service.
        sys.stdout.reconfigure(errors="replace")
    display = Display(Terminal(highlight=False), quiet=quiet)
    try:
        settings = load_settings(config_dir)
        if not _usable(settings, selection, display, quiet):
            return 1
        name = f"{socket.gethostname()}:{os.getpid()}"
        plan = make_plan(settings, selection, name)
        with contextlib.ExitStack() as held:
            secret = _join(settings, plan, display, held)
            if busy := taken(listen for spec in plan.processes for listen in spec.listens):
                for line in busy:
                    display.trouble(line)
                return 1
            launcher = Launcher(
                settings,
                plan,
                display,
                name=name,
                secret=secret,
                logs=log_folder(settings),
                quiet=quiet,
            )
            return asyncio.run(launcher.run())
    except ConfigError as error:
        for problem in error.problems:
            display.trouble(str(problem))
    except (runfile.AlreadyRunning, OSError) as error:
        display.trouble(str(error))
    return 1


def log_folder(settings: Settings) -> Path:
    """``LOG_DIR``; a relative one lies beside the configuration folder."""
    folder = Path(settings.log_dir).expanduser()
    config_dir = settings.origin.config_dir
    return folder if config_dir is None else config_dir.resolve().parent / folder


def _usable(settings: Settings, selection: Selection, display: Display, quiet: bool) -> bool:
    """Whether nothing that is to be started is known to be impossible; shows what is."""
    problems = [p for p in check_settings(settings) if _concerns(p, selection)]
    for problem in problems:
        if problem.severity == "error":
            display.trouble(str(problem))
        elif not quiet:
            display.note(str(problem))
    return all(problem.severity != "error" for problem in problems)


def _concerns(problem: Problem, selection: Selection) -> bool:
    """Whether a problem touches what is started here."""
    if problem.key.startswith("FSCHAT_CONTROLLER"):
        return selection.controller and selection.controller_address is None
    if problem.key.startswith("FSCHAT_OPENAI_API"):
        return selection.gateway
    if problem.key.startswith(_MODEL_TABLES):
        named = selection.models
        return selection.local and (
            named is None or any(f'["{name}"]' in problem.key for name in named)
        )
    return True


def _join(
    settings: Settings, plan: LaunchPlan, display: Display, held: contextlib.ExitStack
) -> str:
    """The cluster's secret: the configured one, else that of a running controller of this
    configuration, else a new one. A controller of our own is published for other commands."""
    configured = settings.secret.get_secret_value() if settings.secret else None
    path = runfile.run_file(settings.origin.config_dir or Path.cwd())
    if plan.owns_controller:
        secret = configured or secrets.token_urlsafe(32)
        running = runfile.Running(os.getpid(), plan.controller, plan.gateway, secret)
        held.enter_context(runfile.hold(path, running))
        return secret
    found = runfile.read(path)
    if configured is None and found is not None and found.controller == plan.controller:
        return found.secret
    if configured is None:
        display.note(
            f"No secret is set: the controller at {plan.controller} takes these processes only if "
            "it asks for none. Set OPSGPT_SECRET to its secret."
        )
    return configured or secrets.token_urlsafe(32)
