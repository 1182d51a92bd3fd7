"""Spans by OpenTelemetry's SDK, sent in batches by a thread of its own. Imported only where traces
are wanted; see ``telemetry.py``."""

import os
import threading
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from dev_opsgpt import __version__
from dev_opsgpt.transport.telemetry import Attributes
from dev_opsgpt.transport.trace_context import TraceContext, context_of

PATH = "/v1/traces"
CLOSE_TIMEOUT = 3.0


class Otlp:
    """``Telemetry`` that goes to a collector. A collector that is away costs spans, and a line in
    the log; never a request.

    No provider of the process is set: two of these in one process do not meet.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        url = endpoint.rstrip("/")
        exporter = OTLPSpanExporter(url if url.endswith(PATH) else url + PATH)
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
        # The sampler is the environment's, by default the one that does as the caller's flag says.
        self._provider = TracerProvider(
            resource=Resource.create({**named, "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("dev_opsgpt", __version__)

    def server_span(
        self, name: str, headers: Mapping[bytes, bytes], attributes: Attributes
    ) -> Span:
        """A span for a request that came in."""
        caller = context_of(headers)
        parent = set_span_in_context(NonRecordingSpan(_remote(caller))) if caller else None
        return self._tracer.start_span(
            name, context=parent, kind=SpanKind.SERVER, attributes=attributes
        )

    def client_span(self, name: str, parent: Span, attributes: Attributes) -> Span:
        """A span for a request that goes out."""
        context = set_span_in_context(parent)
        return self._tracer.start_span(
            name, context=context, kind=SpanKind.CLIENT, attributes=attributes
        )

    def lines(self, span: Span) -> bytes:
        """``traceparent``, and ``tracestate`` where there is one."""
        found = span.get_span_context()
        flags = int(found.trace_flags)
        lines = f"traceparent: 00-{found.trace_id:032x}-{found.span_id:016x}-{flags:02x}\r\n"
        if found.trace_state:
            lines += f"tracestate: {found.trace_state.to_header()}\r\n"
        return lines.encode("ascii")

    def finish(
        self, span: Span, status: int | None, error: str | None = None, *, wrong_from: int = 500
    ) -> None:
        """Ends a span."""
        if span.is_recording():
            refused = status is not None and status >= 400
            if status is not None:
                span.set_attribute("http.response.status_code", status)
            if error is not None or refused:
                span.set_attribute("error.type", error or str(status))
            if (status is not None and status >= wrong_from) or (error is not None and not refused):
                span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Sends what is left."""
        # The SDK would wait for half a minute where the collector does not answer.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT)


def _remote(caller: TraceContext) -> SpanContext:
    return SpanContext(
        caller.trace_id,
        caller.span_id,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if caller.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([caller.state.decode("ascii")] if caller.state else []),
    )
