"""Traces of requests: a client's W3C trace context goes on to the workers, and where a collector
is configured the gateway's own spans stand between.

Names of attributes are OpenTelemetry's: its conventions for HTTP and for generative AI.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from dev_opsgpt.protocol.record import Record
from dev_opsgpt.transport.masking import mask
from dev_opsgpt.transport.telemetry import Attributes, Telemetry, connect
from dev_opsgpt.transport.trace_context import TraceContext, context_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Headers = Mapping[bytes, bytes]

SERVICE = "opsgpt-gateway"
_OPERATIONS: Mapping[str, str] = MappingProxyType(
    {
        "/v1/chat/completions": "chat",
        "/chat/completions": "chat",
        "/v1/completions": "text_completion",
        "/v1/embeddings": "embeddings",
        "/v1/rerank": "rerank",
        "/v2/rerank": "rerank",
        "/rerank": "rerank",
    }
)


class Trace(Protocol):
    """The trace of one request. An attempt is told from another by its worker's address."""

    def attempt(self, address: str) -> bytes:
        """A worker is asked. Gives the header lines to send along, each with its CRLF."""

    def attempted(self, address: str, status: int | None, error: str | None = None) -> None:
        """It answered with a status, or failed without one. Those that nobody tells of end with
        the request."""

    def end(self, record: Record) -> None:
        """The request is over."""


class Tracing(Protocol):
    """Begins traces. ``always``: of every request, not only of those that come with a context."""

    always: bool

    def begin(self, headers: Headers, record: Record) -> Trace | None:
        """Called when a request's head is there; names of headers are in lower case. None where
        there is nothing to trace."""

    def close(self) -> None:
        """Sends what is left. May block for a few seconds."""


def create_tracing(endpoint: str | None) -> Tracing:
    """Tracing to a collector (`otlp_endpoint`), or for None tracing that passes on what came.
    Raises ``TelemetryMissing``."""
    return PassOn() if endpoint is None else Spans(connect(endpoint, SERVICE))


class PassOn:
    """No spans of our own: the client's context, where it is well formed, is what workers get."""

    always = False

    def begin(self, headers: Headers, record: Record) -> Trace | None:
        """None unless the client sent a context."""
        found = context_of(headers)
        return None if found is None else _Passed(found)

    def close(self) -> None:
        """Nothing is left."""


class _Passed:
    __slots__ = ("_lines",)

    def __init__(self, context: TraceContext) -> None:
        self._lines = context.lines

    def attempt(self, address: str) -> bytes:
        return self._lines

    def attempted(self, address: str, status: int | None, error: str | None = None) -> None:
        return

    def end(self, record: Record) -> None:
        return


class Spans:
    """A span for each request, and one for each worker that is asked."""

    always = True

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def begin(self, headers: Headers, record: Record) -> Trace:
        """A trace in any case; whether it is kept, the client's sampled flag says."""
        attributes = {
            "http.request.method": "POST",
            "url.path": record.path,
            "http.route": record.path,
            "client.address": record.client,
            "opsgpt.request.id": record.request_id,
        }
        span = self._telemetry.server_span(f"POST {record.path}", headers, attributes)
        return _Spans(self._telemetry, span, record)

    def close(self) -> None:
        """Sends what is left, for a few seconds at most."""
        self._telemetry.close()


class _Spans:
    __slots__ = ("_attempts", "_record", "_span", "_telemetry")

    def __init__(self, telemetry: Telemetry, span: "Span", record: Record) -> None:
        self._telemetry = telemetry
        self._span = span
        self._record = record
        self._attempts: dict[str, Span] = {}

    def attempt(self, address: str) -> bytes:
        self.attempted(address, None)
        url = urlsplit(address)
        attributes: dict[str, str | int] = {
            **_request(self._record),
            "server.address": url.hostname or address,
            "server.port": url.port or (443 if url.scheme == "https" else 80),
        }
        name = " ".join(
            filter(None, (_OPERATIONS.get(self._record.path), mask(self._record.model)))
        )
        span = self._telemetry.client_span(name or self._record.path, self._span, attributes)
        self._attempts[address] = span
        return self._telemetry.lines(span)

    def attempted(self, address: str, status: int | None, error: str | None = None) -> None:
        span = self._attempts.pop(address, None)
        if span is not None:
            # To a client any status of an error is one.
            self._telemetry.finish(span, status, error, wrong_from=400)

    def end(self, record: Record) -> None:
        for span in self._attempts.values():
            self._telemetry.finish(span, None, record.error)
        self._attempts.clear()
        if self._span.is_recording():
            self._span.set_attributes({**_request(record), **_response(record)})
        # A record's status is 0 until there is one.
        self._telemetry.finish(self._span, record.status or None, record.error)


def _request(record: Record) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "gen_ai.provider.name": "opsgpt",
        "gen_ai.request.stream": record.stream,
    }
    if operation := _OPERATIONS.get(record.path):
        found["gen_ai.operation.name"] = operation
    if record.model:
        found["gen_ai.request.model"] = mask(record.model)
    return found


def _response(record: Record) -> Attributes:
    found = {
        "gen_ai.response.model": record.served or None,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.response.time_to_first_chunk": record.first_token,
        "opsgpt.attempts": record.attempts,
        "opsgpt.queue_time": record.queued,
        "opsgpt.key.id": record.key or None,
        "opsgpt.worker": record.replica or None,
    }
    return {name: value for name, value in found.items() if value is not None}
