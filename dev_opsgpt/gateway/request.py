"""One request on its way through the gateway: what is known of it, and where that is put."""

from collections.abc import Callable

import msgspec

from dev_opsgpt.gateway.auth import Caller
from dev_opsgpt.gateway.opened import Opened
from dev_opsgpt.gateway.peek import Peek
from dev_opsgpt.gateway.stream_usage import UsageFilter, ask, wants_usage
from dev_opsgpt.gateway.tracing import Trace
from dev_opsgpt.protocol.record import Record
from dev_opsgpt.routing.candidate import Asked
from dev_opsgpt.routing.capabilities import Needs, needs_of, prompt_tokens
from dev_opsgpt.routing.fleet import Replica
from dev_opsgpt.transport.exchange import Exchange

# Routes that answer in one piece, whatever a request says of streams.
_PLAIN = frozenset({"/v1/embeddings", "/v1/rerank"})
# OpenAI's tiers, as steps within one priority of a key: they let nobody past a more important key.
_TIERS = {"priority": 2, "default": 1, "auto": 1, "flex": 0, "batch": 0}
_STEPS = 3


class Request:
    """A request that was let in. ``path`` is the worker's route, ``body`` what it is sent: asking
    for the usage of a stream too, which ``usage`` takes out again of what the client gets.

    ``asked`` is what dispatch policies look at, ``tried`` the replicas that have been asked,
    ``broken`` those of them that broke off, with the number of their last beat by then. ``begun``
    is when the last of them was asked, in seconds from the request's arrival; ``events`` is the
    number of events passed on.
    """

    __slots__ = (
        "_needs",
        "asked",
        "begun",
        "body",
        "broken",
        "caller",
        "clock",
        "events",
        "exchange",
        "model",
        "path",
        "peek",
        "record",
        "trace",
        "tried",
        "usage",
    )

    def __init__(
        self,
        exchange: Exchange,
        caller: Caller,
        record: Record,
        peek: Peek,
        *,
        path: str,
        body: bytes,
        trace: Trace | None,
        ask_usage: bool,
        clock: Callable[[], float],
    ) -> None:
        self.exchange: Exchange | Opened = exchange
        self.caller = caller
        self.record = record
        self.peek = peek
        self.path = path
        self.model = peek.model
        self.body = body
        self.trace = trace
        self.clock = clock
        self.events = 0
        self.begun = 0.0
        self.tried: list[Replica] = []
        self.broken: dict[Replica, int] = {}
        self.usage: UsageFilter | None = None
        self.asked = _NOTHING_ASKED
        self._needs: Needs | None = None
        if peek.stream and path not in _PLAIN:
            options = bytes(peek.stream_options) or None
            wanted = wants_usage(options)
            self.usage = UsageFilter(asked=wanted)
            if ask_usage and not wanted:
                self.body = ask(body, options)

    @property
    def needs(self) -> Needs:
        """What it needs of a model; read when it is first asked for."""
        if self._needs is None:
            self._needs = needs_of(self.body)
        return self._needs

    @property
    def priority(self) -> int:
        """Its place among those that wait: by its key first, then by its service tier."""
        tier = text_of(self.peek.service_tier) if self.peek.service_tier else None
        return self.caller.priority * _STEPS + _TIERS.get(tier or "default", 1)

    def lines_for(self, address: str) -> bytes:
        """Header lines that go with it to a worker: its id, and its place in a trace."""
        lines = b"x-request-id: %b\r\n" % self.record.request_id.encode()
        return lines + self.trace.attempt(address) if self.trace is not None else lines

    def close(self) -> None:
        """It is over. A stream that ended before its server told its usage is counted by what it
        had told so far, or by what was passed on: who hangs up early shall not have had it for
        nothing."""
        record = self.record
        if self.events and record.completion_tokens is None:
            told = self.usage.tokens if self.usage is not None else None
            if told is None or told.completion is None:
                record.prompt_tokens = prompt_tokens(self.body)
                record.completion_tokens = self.events
            else:
                record.prompt_tokens = told.prompt
                record.completion_tokens = told.completion
                record.cached_tokens = told.cached

    def elapsed(self) -> float:
        """Seconds since its arrival."""
        return self.clock() - self.exchange.arrived


_NOTHING_ASKED = Asked()


def text_of(raw: msgspec.Raw) -> str | None:
    """A JSON string; None for anything else."""
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
