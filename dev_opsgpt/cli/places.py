"""Where the gateway and the controller are, and by which secret the controller is asked."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from dev_opsgpt.cli.errors import CliError
from dev_opsgpt.cli.http import Api
from dev_opsgpt.config import ConfigError, Settings, load_settings
from dev_opsgpt.launcher import runfile

KEY_NEEDED = "Give a key with --key or in OPENAI_API_KEY."
SECRET_NEEDED = "Set OPSGPT_SECRET to the secret of the service."  # noqa: S105 - no secret itself


def settings_of(config_dir: Path | None) -> Settings:
    """The settings. Raises ``CliError`` with every problem."""
    try:
        return load_settings(config_dir)
    except ConfigError as error:
        raise CliError(str(error)) from None


def gateway(config_dir: Path | None, url: str | None, key: str | None) -> Api:
    """The gateway at ``url``, else that of the running service, else where the configuration
    puts it."""
    if url is None:
        settings = settings_of(config_dir)
        running = _running(settings)
        found = running.gateway if running is not None else None
        url = found or settings.gateway_address
    base = url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1"
    return Api(base, key, KEY_NEEDED)


def controller(config_dir: Path | None, url: str | None) -> Api:
    """The controller at ``url``, else that of the running service, else where the configuration
    puts it."""
    settings = settings_of(config_dir)
    running = _running(settings)
    secret = settings.secret.get_secret_value() if settings.secret else None
    if running is not None and url in (None, running.controller):
        return Api(running.controller, running.secret, SECRET_NEEDED)
    return Api(url or settings.controller_address, secret, SECRET_NEEDED)


def _running(settings: Settings) -> runfile.Running | None:
    try:
        return runfile.read(runfile.run_file(settings.origin.config_dir or Path.cwd(), os.environ))
    except OSError:
        return None
