"""Our own parts as real processes, started and stopped like fschat's."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.compat.fschat_env import Environment, Service, Tier, start_service

# As opsgpt_part.py logs it.
LISTENING = "this part is listening"
SCRIPT = Path(__file__).with_name("opsgpt_part.py")
# Ours run where the tests run; which fschat is there, if any, does not matter to them.
HERE = Environment(Path(sys.executable).parent.parent, Tier.LIGHT)


def start_part(
    logs: Path,
    part: str,
    secret: str | None,
    options: Sequence[str] = (),
    *,
    probe: str,
    port: int | None = None,
) -> Service:
    """`opsgpt_part.py part`, answering on `probe`."""

    def command(url: str, port: int) -> list[str]:
        return [str(SCRIPT), part, "--port", str(port), *options]

    environ = {"OPSGPT_SECRET": secret} if secret else {}
    return start_service(
        HERE, logs, f"our-{part}", command, probe, environ=environ, listening=LISTENING, port=port
    )


def our_controller(
    logs: Path, secret: str | None, *, port: int | None = None, allow: Sequence[str] = ()
) -> Service:
    """Our controller; ``allow`` are the addresses of workers that may do without the secret."""
    options = [option for pattern in allow for option in ("--allow", pattern)]
    return start_part(logs, "controller", secret, options, probe="/test_connection", port=port)


def our_worker(logs: Path, secret: str | None, controller: str, model: str) -> Service:
    """Our worker with the embedded model, on llama.cpp."""
    options = ["--controller", controller, "--model", model]
    return start_part(logs, "worker", secret, options, probe="/health")


def our_gateway(logs: Path, secret: str | None, controller: str) -> Service:
    """Our gateway."""
    return start_part(logs, "gateway", secret, ["--controller", controller], probe="/health")
