"""The model service alone, whole or in parts: ``python dev_opsgpt/service/llm_api.py``.

The flags are those of the seed. Without any of ``--llm-api``, ``-o``, ``-m`` and ``-p`` everything
is started; each of these starts its part only, and they add up.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

if not __package__:
    # Run as a script: Python has put this file's folder on the path, and the package is not in it.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from dev_opsgpt.launcher.plan import Selection


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="llm_api.py", description="Starts the model service: controller, models, OpenAI API."
    )
    add = found.add_argument
    parts = "start the controller, the OpenAI API and the models (the default)"
    add("--llm-api", action="store_true", help=parts)
    add("-o", "--openai-api", action="store_true", help="start the controller and the OpenAI API")
    add("-m", "--model-worker", action="store_true", help="start the workers of local models")
    add("-p", "--api-worker", action="store_true", help="start the workers of online models")
    add(
        "-n",
        "--model-name",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="start these models only; without it those that the configuration starts",
    )
    add(
        "-c",
        "--controller",
        type=_url,
        metavar="URL",
        help="use the controller at this address, and start none (its OPSGPT_SECRET is needed)",
    )
    add("-q", "--quiet", action="store_true", help="show trouble only, log less")
    add("-i", "--lite", action="store_true", help="start online models only, no local engine")
    add("--config", type=Path, metavar="DIR", help="folder of the configuration")
    return found


def selection(arguments: argparse.Namespace) -> Selection:
    """What the flags select. Raises ``ValueError`` where they contradict each other."""
    if arguments.lite and arguments.model_worker:
        raise ValueError("-i/--lite starts no local model, -m/--model-worker starts them")
    everything = arguments.llm_api or not (
        arguments.openai_api or arguments.model_worker or arguments.api_worker
    )
    servers = everything or arguments.openai_api
    local = (everything or arguments.model_worker) and not arguments.lite
    online = everything or arguments.api_worker
    if arguments.model_name and not (local or online):
        raise ValueError("-n/--model-name needs -m/--model-worker or -p/--api-worker beside -o")
    return Selection(
        controller=servers,
        gateway=servers,
        local=local,
        online=online,
        models=tuple(arguments.model_name) if arguments.model_name else None,
        controller_address=arguments.controller,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until it is stopped; the exit code."""
    command = parser()
    arguments = command.parse_args(argv)
    try:
        chosen = selection(arguments)
    except ValueError as error:
        command.error(str(error))

    from dev_opsgpt.launcher.interrupts import plain_interrupts

    with plain_interrupts():
        from dev_opsgpt.launcher.command import launch

    return launch(arguments.config, chosen, quiet=arguments.quiet)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"not a URL such as http://127.0.0.1:20001: {text}")
    return text.rstrip("/")


if __name__ == "__main__":
    sys.exit(main())
