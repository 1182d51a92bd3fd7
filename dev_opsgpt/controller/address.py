"""Addresses of workers: which are acceptable, and which a pattern of the configuration allows."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from dev_opsgpt.protocol.errors import InvalidRequest

_SHAPE = re.compile(r"[!-~]+")  # printable ASCII: nothing that a URL parser would drop in silence
_HOST = re.compile(r"^https?://(\[[^]]*\]?|[^/:]*)")
_NUMERIC = re.compile(r"[\d.:*?\[\]]+")


def check_address(address: str, field: str = "worker_name") -> None:
    """Raises ``InvalidRequest`` unless the address is an http(s) URL of a host, with no user
    name, query or fragment in it: nothing that hides where a call really goes."""
    if not _acceptable(address):
        raise InvalidRequest(
            f"'{field}' must be an http:// or https:// URL of a host, without user name, query "
            "and fragment",
            param=field,
        )


def allowed(address: str, patterns: tuple[str, ...]) -> bool:
    """Whether an acceptable address matches one of the patterns.

    ``*`` stands for any run of characters but ``/``, ``?`` for one of them. A pattern whose host
    is written in numbers matches addresses in numbers only, so that ``http://10.0.0.*`` never
    admits ``http://10.0.0.1.example.com``. The pattern ``*`` alone matches every address.
    """
    return _acceptable(address) and any(_matches(address, pattern) for pattern in patterns)


def _acceptable(address: str) -> bool:
    if not _SHAPE.fullmatch(address) or "\\" in address or "?" in address or "#" in address:
        return False
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and "@" not in parts.netloc
        and not parts.netloc.endswith(":")
        and port != 0
    )


def _matches(address: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    signs = {"*": "[^/]*", "?": "[^/]"}
    regex = "".join(signs.get(char, re.escape(char)) for char in pattern)
    if not re.fullmatch(regex, address):
        return False
    host = _HOST.match(pattern)
    return host is None or not _NUMERIC.fullmatch(host[1]) or host[1] == "*" or _is_ip(address)


def _is_ip(address: str) -> bool:
    try:
        ip_address(urlsplit(address).hostname or "")
    except ValueError:
        return False
    return True
