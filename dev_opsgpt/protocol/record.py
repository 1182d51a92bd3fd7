"""What is known of one request when it is over: the one thing that metrics, usage, the access log
and limits are made from."""

import msgspec


class Record(msgspec.Struct):
    """One request at the gateway, filled in on its way and handed on when it is over.

    ``at`` is Unix time in seconds, ``duration`` and ``first_token`` (the first byte of the answer)
    are seconds from the request's arrival; ``generating`` is seconds from the first byte to the
    last. ``model`` is what the client asked for, ``served`` what answered, ``replica`` the address
    of the worker that did. Tokens are None where nobody said how many. ``cost`` is in the price
    table's unit. ``status`` is what the client got; 499 when it hung up before the end.
    ``error`` is the code of the error in the answer or at the end of the stream. ``attempts``
    counts the workers asked, ``queued`` is seconds waited in the gateway.
    """

    request_id: str
    at: float
    path: str
    model: str = ""
    served: str = ""
    replica: str = ""
    key: str = ""
    """Identifier of the client's key (never the key itself); empty for none."""
    owner: str = ""
    client: str = ""
    """Address of the client."""
    stream: bool = False
    status: int = 0
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost: float | None = None
    attempts: int = 0
    queued: float = 0.0
    first_token: float | None = None
    generating: float | None = None
    duration: float = 0.0

    @property
    def tokens(self) -> int | None:
        """Prompt and completion together; None where nobody said."""
        if self.prompt_tokens is None and self.completion_tokens is None:
            return None
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)
