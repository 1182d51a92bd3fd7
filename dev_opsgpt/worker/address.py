"""The address under which others reach this worker."""

import contextlib
import socket
from urllib.parse import urlsplit

ANY = ("0.0.0.0", "::", "")


def advertised(host: str, port: int, advertise_host: str | None, controller: str) -> str:
    """The worker's URL: the configured host, or the one it listens on, or, where it listens on
    all, the address of the interface that leads to the controller."""
    name = advertise_host or (host if host not in ANY else _towards(controller))
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _towards(url: str) -> str:
    parts = urlsplit(url)
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)
        family, kind, proto, _, target = found[0]
        # Connecting a datagram socket sends nothing; it only picks the interface.
        with socket.socket(family, kind, proto) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    return "127.0.0.1"
