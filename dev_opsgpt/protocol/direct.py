"""The key of a server that stands beside a worker, where the gateway asks it without the worker
in between.

The worker draws a salt for every life of its server and tells it when it registers. Both sides make
the key of it and of the cluster's secret: so the key is new each time, the server never learns the
secret, and no key is in the table of workers, which is listed, watched and shown.
"""

import hashlib
import hmac
import secrets

SALT_BYTES = 24


def new_salt() -> str:
    """A salt that nobody has had before; it is no secret."""
    return secrets.token_hex(SALT_BYTES)


def direct_key(secret: str | None, salt: str) -> str:
    """The server's key. Without a secret everything in the cluster is open, and so is this: whoever
    reads the salt can make the key."""
    made = hmac.new((secret or "").encode(), f"direct server {salt}".encode(), hashlib.sha256)
    return made.hexdigest()
