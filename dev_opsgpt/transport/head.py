"""What a request's head must keep to beyond what the parser sees to. Pure.

Two readers of one request that do not agree where it ends are how one request is smuggled in
another. So whatever the next server could read in another way is refused, not guessed at.
Source: RFC 9112 (HTTP/1.1), RFC 9110 (HTTP Semantics).
"""

import re
from collections.abc import Mapping

from dev_opsgpt.protocol.errors import HeadersTooLarge, InvalidRequest

# Bytes of a request's first line and headers.
MAX_HEAD = 65_536
CODE = "invalid_http"
NOT_HTTP = "This is no valid HTTP request."

_END = b"\r\n\r\n"
# A name, an IPv4 or IPv6 address, and a port; or nothing.
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_ABSOLUTE = re.compile(rb"https?://[^/?#]+([^#]*)", re.IGNORECASE)
_ONCE = (b"host", b"transfer-encoding")


def check(version: str, fields: Mapping[bytes, bytes], head: bytes) -> None:
    """Raises ``InvalidRequest`` for a head that has to be refused.

    ``version`` is HTTP's, ``fields`` the headers by their lower-case names, ``head`` the bytes that
    they were read from and what follows them, as far as these are known.
    """
    if version not in ("1.1", "1.0"):
        raise refused("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    host = fields.get(b"host")
    if host is None and version == "1.1":
        raise refused("The header 'host' is missing.")
    if host is not None and _HOST.fullmatch(host.strip()) is None:
        raise refused("The header 'host' names no host.")
    encoding = fields.get(b"transfer-encoding")
    if encoding is not None and (version == "1.0" or encoding.strip().lower() != b"chunked"):
        raise refused("The only 'transfer-encoding' is 'chunked', in HTTP/1.1.")
    lines = _lines(head)
    for name in _ONCE:
        if lines.count(b"\n%b:" % name) > 1:
            raise refused(f"The header '{name.decode()}' is there twice.")


def size(url: bytes, fields: Mapping[bytes, bytes]) -> int:
    """Bytes of a head, more or less."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in fields.items())


def origin_form(target: bytes) -> bytes:
    """A request's target without scheme and host, where it has any: every server must take them."""
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return target
    rest = found[1]
    return rest if rest.startswith(b"/") else b"/" + rest


def without_upgrade(
    method: bytes, target: bytes, version: str, fields: Mapping[bytes, bytes]
) -> bytes:
    """The head of the same request by a client that asks for no other protocol."""
    kept = {name: value for name, value in fields.items() if name != b"upgrade"}
    lines = b"".join(b"%b: %b\r\n" % pair for pair in kept.items())
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version.encode(), lines)


def _lines(head: bytes) -> bytes:
    """The lines of a head in lower case, each after the end of the one before."""
    # Empty lines may come before a request.
    head = head.lstrip(b"\r\n")
    end = head.find(_END)
    return (head if end < 0 else head[:end]).lower()


def refused(message: str) -> InvalidRequest:
    """The error for what is not HTTP as it should be."""
    return InvalidRequest(message, code=CODE)


def too_large() -> HeadersTooLarge:
    """The error for a head of more bytes than are taken."""
    return HeadersTooLarge(f"The request's head is larger than {MAX_HEAD} bytes.")
