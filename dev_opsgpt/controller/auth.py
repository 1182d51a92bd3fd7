"""Who may call what: the shared secret, and the exceptions for FastChat's parts that lack it."""

from enum import Enum, auto
from hmac import compare_digest

from dev_opsgpt.controller.address import allowed
from dev_opsgpt.protocol.errors import AuthenticationFailed


class Access(Enum):
    """What a route asks of its callers."""

    OPEN = auto()
    """Nothing."""
    CLIENT = auto()
    """The secret, unless FastChat's clients are let in without."""
    WORKER = auto()
    """The secret, or a worker address that may do without."""
    SECRET = auto()
    """The secret."""


class Guard:
    """Compares credentials. Without a secret every caller counts as trusted."""

    def __init__(
        self, secret: str | None, fastchat_workers: tuple[str, ...], fastchat_clients: bool
    ) -> None:
        self._secret = secret.encode() if secret else None
        self.allow(fastchat_workers, fastchat_clients)

    def allow(self, fastchat_workers: tuple[str, ...], fastchat_clients: bool) -> None:
        """Sets who may do without the secret, from now on."""
        self._workers = fastchat_workers
        self._clients = fastchat_clients

    def admit(self, access: Access, token: str | None) -> bool:
        """Lets a caller in and tells whether it knew the secret.

        A route for workers lets one without the secret pass only if some address may do so; the
        route then asks ``admit_worker``. Raises ``AuthenticationFailed``.
        """
        trusted = self._knows_secret(token)
        exempt = (
            access is Access.OPEN
            or (access is Access.CLIENT and self._clients)
            or (access is Access.WORKER and bool(self._workers))
        )
        if not trusted and not exempt:
            raise AuthenticationFailed("This route needs the cluster's secret as a Bearer token.")
        return trusted

    def admit_worker(self, address: str, trusted: bool) -> None:
        """Raises ``AuthenticationFailed`` unless the caller may speak for this address. To be asked
        before anything is sent to the address: it is the caller's choice where that goes."""
        if not trusted and not allowed(address, self._workers):
            raise AuthenticationFailed(
                "This worker's address may not register without the cluster's secret; see "
                "'fastchat_workers' in FSCHAT_CONTROLLER."
            )

    def _knows_secret(self, token: str | None) -> bool:
        if self._secret is None:
            return True
        return token is not None and compare_digest(token.encode("latin-1"), self._secret)
