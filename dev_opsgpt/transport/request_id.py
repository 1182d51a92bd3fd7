"""The id that a request goes by in every process that it passes, and in their logs."""

import re
import secrets
from contextvars import ContextVar

HEADER = b"x-request-id"

current: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the running task is about; empty where it is about none."""

# What needs no quoting anywhere: in headers, logs, shells and URLs.
_SAFE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def accepted(header: bytes | None) -> str | None:
    """The id in the header ``x-request-id``; None where there is none that is safe to repeat: up
    to 128 letters, digits and ``._:/+=@-``."""
    if header is None or _SAFE.fullmatch(header) is None:
        return None
    return header.decode("ascii")


def new_id() -> str:
    """An id that no other request has. For those that are few; ``RequestIds`` makes them faster."""
    return f"req-{secrets.token_hex(12)}"
