"""Who may use the gateway: Bearer keys, those of the configuration and those with limits out of
the database, both known by their hashes only."""

import hashlib
import ipaddress
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.protocol.errors import AuthenticationFailed, PermissionDenied
from dev_opsgpt.transport.asgi import header, token_of
from dev_opsgpt.transport.server import Scope

HASHED = "sha256:"
# Callers that are remembered by their header.
RECENT = 4096


class VirtualKeys(Protocol):
    """The keys out of the database."""

    def find(self, token: str) -> Key | None:
        """The key, None for an unknown one. Raises ``AuthenticationFailed`` for one that has
        expired or was revoked."""

    def __len__(self) -> int: ...


class Caller(msgspec.Struct, frozen=True):
    """Who asks. ``id`` tells keys apart in records and logs, and is no secret; empty for none.
    ``own_key`` is the caller's own token where it is none of ours: a provider may want it."""

    id: str = ""
    owner: str = ""
    priority: int = 0
    own_key: str | None = None
    key: Key | None = None

    def may_use(self, model: str) -> bool:
        """Whether the key is for this model."""
        return self.key is None or self.key.models is None or model in self.key.models

    def check_model(self, model: str) -> None:
        """Raises ``PermissionDenied`` where the key is not for this model."""
        if not self.may_use(model):
            message = f"This API key may not use the model '{model}'."
            raise PermissionDenied(message, param="model", code="model_not_allowed")


def digest(key: str) -> bytes:
    """A key's SHA-256; a key that is configured as ``sha256:<hex>`` is one already."""
    if key.startswith(HASHED):
        return bytes.fromhex(key.removeprefix(HASHED))
    return hashlib.sha256(key.encode()).digest()


class Keys:
    """The configured keys and, where given, the virtual ones. With none at all, callers on this
    machine need no key, and others get in with none either."""

    def __init__(self, keys: Iterable[str], virtual: VirtualKeys | None = None) -> None:
        self._virtual = virtual
        # The headers of callers that were let in of late: most requests come from few callers.
        # They are in this process's memory anyway, while their requests last.
        self._recent: dict[bytes, Caller] = {}
        self._configured: dict[bytes, Caller] = {}
        self.replace(keys)

    def replace(self, keys: Iterable[str]) -> None:
        """Takes the keys of a changed configuration."""
        self.forget()
        found = map(digest, keys)
        self._configured = {hashed: Caller(id=f"api-{hashed.hex()[:8]}") for hashed in found}

    def forget(self) -> None:
        """Looks every caller up anew: keys have changed."""
        self._recent.clear()

    @property
    def needed(self) -> bool:
        """Whether callers need a key."""
        return bool(self._configured) or bool(self._virtual)

    def find(self, token: str) -> Caller | None:
        """Who comes with the token. Raises ``AuthenticationFailed`` for a key of the past.

        Looked up by its hash, which a caller cannot steer, so the time tells nothing of how near
        a wrong one was.
        """
        known = self._configured.get(hashlib.sha256(token.encode()).digest())
        if known is None and self._virtual is not None:
            key = self._virtual.find(token)
            if key is not None:
                return Caller(key.id, key.owner, key.priority, None, key)
        return known

    def knows(self, token: str | None) -> bool:
        """Whether the token is one of the keys."""
        return token is not None and self.find(token) is not None

    def admit(self, authorization: bytes | None, client: str) -> Caller:
        """The caller with this ``Authorization`` header at this address. Raises
        ``AuthenticationFailed`` unless it may go on."""
        if authorization is not None:
            known = self._recent.get(authorization)
            if known is not None:
                return known
        token = token_of(authorization)
        if not self.needed:
            if not is_local(client):
                raise AuthenticationFailed(
                    "No API keys are configured, so only callers on this machine are served."
                )
            return Caller(own_key=token)
        if token is None:
            raise AuthenticationFailed(
                "You didn't provide an API key. Send it as 'Authorization: Bearer <key>'."
            )
        caller = self.find(token)
        if caller is None:
            raise AuthenticationFailed("Incorrect API key provided.")
        if authorization is not None and (caller.key is None or caller.key.expires_at is None):
            if len(self._recent) >= RECENT:
                self._recent.clear()
            self._recent[authorization] = caller
        return caller

    def check(self, scope: Scope) -> Caller:
        """``admit`` for an ASGI request."""
        client = scope.get("client")
        return self.admit(header(scope, b"authorization"), client[0] if client else "")


def is_local(address: str) -> bool:
    """Whether an IP address is this machine's own."""
    if address == "127.0.0.1":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def admin_check(keys: Iterable[str], secret: str | None) -> Callable[[str | None], bool]:
    """Whether a token is an admin key; the cluster's ``secret`` is the only one where none is
    configured."""
    known = {digest(key) for key in keys} or ({digest(secret)} if secret else set())

    def check(token: str | None) -> bool:
        return token is not None and hashlib.sha256(token.encode()).digest() in known

    return check
