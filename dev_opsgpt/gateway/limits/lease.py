"""What is agreed on when a request is let in, and who agrees."""

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.gateway.limits.standing import rate_lines
from dev_opsgpt.routing.limits import BUCKETS, PER_SECOND, duration

# All of the minute has left when this request has, which was counted just now.
_RESET = duration(BUCKETS / PER_SECOND)


class Lease:
    """One request's share of its key's limits, from admission until it is settled.

    ``tokens`` is what was reserved, ``bucket`` where in the windows it was counted; ``entered``
    tells the limits what they count as in flight, None for nothing. ``requests_left`` and
    ``tokens_left`` are what the key may still use. A lease that is dropped without having been
    settled is given to ``lost``, so that it takes nothing for ever.
    """

    __slots__ = (
        "bucket",
        "entered",
        "key",
        "lost",
        "requests_left",
        "settled",
        "tokens",
        "tokens_left",
    )

    def __init__(
        self,
        key: Key | None,
        tokens: int,
        requests_left: int,
        tokens_left: int,
        bucket: int,
        entered: Any,
        lost: Callable[["Lease"], None] | None,
    ) -> None:
        self.key = key
        self.tokens = tokens
        self.requests_left = requests_left
        self.tokens_left = tokens_left
        self.bucket = bucket
        self.entered = entered
        self.lost = lost
        self.settled = lost is None

    def header_lines(self) -> bytes:
        """OpenAI's ``x-ratelimit-*`` header lines, each with its CRLF; made when asked for."""
        key = self.key
        if key is None:
            return b""
        return rate_lines(key.rpm, self.requests_left, _RESET, key.tpm, self.tokens_left, _RESET)

    def __del__(self) -> None:
        if not self.settled and self.lost is not None:
            self.lost(self)


UNLIMITED = Lease(None, 0, 0, 0, 0, None, None)
"""What every request of a key without limits gets."""


class Used(Struct, frozen=True):
    """What a key uses now: requests and tokens of the last minute, requests in flight, and what it
    spent in the budget period. Of a limit that is not set, nothing need be counted."""

    requests: int = 0
    tokens: int = 0
    concurrent: int = 0
    spent: float = 0.0


class Limits(Protocol):
    """Counts and refuses. To be used within one event loop's thread."""

    async def admit(self, key: Key, tokens: int) -> Lease:
        """Lets a request in that is expected to use so many tokens. Raises ``RateLimited``, and
        has then counted nothing."""
        ...

    def settle(self, lease: Lease, tokens: int | None, cost: float) -> None:
        """A request is over, and this is what it used; None: nobody knows how many tokens, and the
        reserved ones stand. A lease that is settled already is left alone."""
        ...

    async def used(self, key: Key) -> Used:
        """What is counted now."""
        ...

    async def spent(self, key: Key, at: float, amount: float) -> None:
        """Has the database's word for what the key has spent in the budget period of Unix time
        ``at``; the higher of it and of what was counted holds."""
        ...

    def forgot(self) -> bool:
        """Whether what was counted may have been lost since the last call, so that ``spent`` is to
        be called for the keys with a budget."""
        ...

    async def close(self) -> None:
        """Lets go of what is held. Nothing may be called after it."""
        ...
