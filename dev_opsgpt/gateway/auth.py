"""Who may use the gateway: Bearer keys from the configuration, kept as hashes."""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable

from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.transport.asgi import bearer
from dev_opsgpt.transport.server import Scope

HASHED = "sha256:"


def digest(key: str) -> bytes:
    """A key's SHA-256; a key that is configured as ``sha256:<hex>`` is one already."""
    if key.startswith(HASHED):
        return bytes.fromhex(key.removeprefix(HASHED))
    return hashlib.sha256(key.encode()).digest()


class Keys:
    """The configured keys. With none, callers on this machine need no key, and others get in with
    none either."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [digest(key) for key in keys]

    def knows(self, token: str | None) -> bool:
        """Whether the token is one of the keys. Takes as long for every wrong token."""
        if token is None:
            return False
        given = hashlib.sha256(token.encode()).digest()
        # A sum and no early exit: the time must not tell which key was nearly right.
        return sum(hmac.compare_digest(given, known) for known in self._digests) > 0

    def check(self, scope: Scope) -> str | None:
        """Raises ``AuthenticationFailed`` unless the caller may go on. Gives the caller's own key,
        where it sent one that is none of ours: a provider may want it."""
        token = bearer(scope)
        if not self._digests:
            if not _local(scope):
                raise AuthenticationFailed(
                    "No API keys are configured, so only callers on this machine are served."
                )
            return token
        if token is None:
            raise AuthenticationFailed(
                "You didn't provide an API key. Send it as 'Authorization: Bearer <key>'."
            )
        if not self.knows(token):
            raise AuthenticationFailed("Incorrect API key provided.")
        return None


def _local(scope: Scope) -> bool:
    client = scope.get("client")
    if client is None:
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
