"""Whether the ports of a plan are free, asked before anything is started."""

from collections.abc import Iterable

from dev_opsgpt.launcher.plan import Listen
from dev_opsgpt.transport.server import PortInUse, bind


def taken(listens: Iterable[Listen]) -> list[str]:
    """One line for each port that cannot be bound now: which, why, and how to mend it."""
    lines = []
    for listen in listens:
        try:
            bind(listen.host, listen.port).close()
        except PortInUse as error:
            lines.append(
                f"{error} ({listen.key}). Stop the program that uses the port, or change the key."
            )
    return lines


def is_free(host: str, port: int) -> bool:
    """Whether a port can be bound now."""
    return not taken([Listen(host, port, "")])
