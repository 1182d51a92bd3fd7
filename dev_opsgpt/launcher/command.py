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

from dev_opsgpt.config import ConfigError, Settings, load_settings
from dev_opsgpt.config.paths import find_config_dir
from dev_opsgpt.launcher import runfile
from dev_opsgpt.launcher.display import Display, Terminal
from dev_opsgpt.launcher.folders import (
    Unwritable,
    data_folder,
    log_folder,
    refused,
    run_folder,
)
from dev_opsgpt.launcher.force import InForce, problems_of
from dev_opsgpt.launcher.local import Launcher
from dev_opsgpt.launcher.plan import LaunchPlan, Selection
from dev_opsgpt.launcher.watching import Fingerprint, fingerprint
from dev_opsgpt.transport.server import PortInUse

# What a shell takes for the end by Ctrl-C.
INTERRUPTED = 130


def launch(config_dir: Path | None, selection: Selection, *, quiet: bool = False) -> int:
    """Starts what is selected and stays until it is stopped. Gives the exit code: 0 after a stop
    that was asked for, 1 when the start failed, whose reason has then been shown, 130 after a
    Ctrl-C before anything was started."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a sign shows "?" instead of ending the service.
        sys.stdout.reconfigure(errors="replace")
    display = Display(Terminal(highlight=False), quiet=quiet)
    try:
        folder = find_config_dir(config_dir, os.environ)
        known = fingerprint(folder)
        settings = load_settings(folder)
        if not quiet:
            _warn(settings, selection, display)
        return _launch(settings, selection, display, known, quiet)
    except ConfigError as error:
        for problem in error.problems:
            display.trouble(str(problem))
    except PortInUse as error:
        for line in str(error).splitlines():
            display.trouble(line)
    except (runfile.AlreadyRunning, Unwritable, OSError) as error:
        display.trouble(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 1


def _launch(
    settings: Settings, selection: Selection, display: Display, known: Fingerprint, quiet: bool
) -> int:
    """Runs a service that has been read. Raises ``ConfigError``, ``PortInUse``, ``AlreadyRunning``,
    ``Unwritable`` and ``OSError`` where it cannot be started."""
    name = f"{socket.gethostname()}:{os.getpid()}"
    with contextlib.ExitStack() as held:
        run_dir = held.enter_context(run_folder(data_folder(settings), name))
        force = InForce(settings, selection, name, run_dir)
        held.callback(force.close)
        secret = _join(settings, force, run_dir, display, held)
        logs = log_folder(settings)
        force.begin(secret)
        if refusal := refused(logs):
            display.note(
                f"LOG_DIR: there will be no log files: {logs} cannot be written: {refusal}"
            )
        launcher = Launcher(
            force,
            display,
            name=name,
            secret=secret,
            logs=logs,
            run_dir=run_dir,
            config_dir=settings.origin.config_dir or Path.cwd(),
            known=known,
            quiet=quiet,
        )
        return asyncio.run(launcher.run())


def _warn(settings: Settings, selection: Selection, display: Display) -> None:
    for problem in problems_of(settings, selection):
        if problem.severity == "warning":
            display.note(str(problem))


def _join(
    settings: Settings,
    force: InForce,
    run_dir: Path,
    display: Display,
    held: contextlib.ExitStack,
) -> str:
    """The cluster's secret: the configured one, else that of a running controller of this
    configuration, else a new one. A controller of our own is published for other commands."""
    configured = settings.secret.get_secret_value() if settings.secret else None
    path = runfile.run_file(settings.origin.config_dir or Path.cwd())
    plan = force.plan
    if plan.owns_controller:
        secret = configured or secrets.token_urlsafe(32)

        def running(plan: LaunchPlan) -> runfile.Running:
            return runfile.Running(os.getpid(), plan.controller, plan.gateway, secret, str(run_dir))

        publish = held.enter_context(runfile.hold(path, running(plan)))
        force.published = lambda plan: publish(running(plan))
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
