"""Whether the ports of a plan are free, asked before anything is started."""

import errno
import socket
import sys
from collections.abc import Iterable

from dev_opsgpt.launcher.plan import Listen
from dev_opsgpt.transport.server import PortInUse, bind


def taken(listens: Iterable[Listen]) -> list[str]:
    """One line for each port that cannot be bound now: which, why, and how to mend it."""
    lines = []
    for listen in dict.fromkeys(listens):
        try:
            bind(listen.host, listen.port).close()
        except PortInUse as error:
            lines.append(_line(error, listen))
    return lines


def claim(listen: Listen) -> socket.socket:
    """Keeps other launchers of this machine off a port, until what it gives is closed: gateways
    let others of the same user listen on theirs, so the kernel does not. Raises ``PortInUse``."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        # A name without a file, which is gone with its process. Only Linux has those.
        if sys.platform == "linux":
            sock.bind(f"\0opsgpt-gateway/{listen.host}:{listen.port}")
    except OSError:
        sock.close()
        where = f"{listen.host}:{listen.port}"
        error = PortInUse(f"cannot listen on {where}: another launcher starts its gateway there")
        raise PortInUse(_line(error, listen)) from None
    return sock


def _line(error: PortInUse, listen: Listen) -> str:
    return f"{error} ({listen.key}). {_mend(error.errno)}"


def _mend(number: int | None) -> str:
    if number in (None, errno.EADDRINUSE):
        return "Stop the program that uses the port, or change the key."
    if number in (errno.EACCES, errno.EPERM):
        return "Ports below 1024 are for root; change the key."
    return "Change the host beside it to an address of this machine."


def is_free(host: str, port: int) -> bool:
    """Whether a port can be bound now."""
    return not taken([Listen(host, port, "")])
