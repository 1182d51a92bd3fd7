"""Sends spans to a collector. OpenTelemetry is loaded here and only when it is wanted: it is an
optional extra, and costs a start a tenth of a second."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Attributes = Mapping[str, str | int | float | bool]


class TelemetryMissing(Exception):
    """Traces are to be sent and OpenTelemetry is not installed; the message is one clear line."""


class Telemetry(Protocol):
    """Begins spans; who begins one finishes it."""

    def server_span(
        self, name: str, headers: Mapping[bytes, bytes], attributes: Attributes
    ) -> "Span":
        """A span for a request that came in, in the trace that its headers name, or in a new
        one."""

    def client_span(self, name: str, parent: "Span", attributes: Attributes) -> "Span":
        """A span for a request that goes out."""

    def lines(self, span: "Span") -> bytes:
        """The header lines that let the receiver of a request continue at the span."""

    def finish(
        self, span: "Span", status: int | None, error: str | None = None, *, wrong_from: int = 500
    ) -> None:
        """Ends a span. ``status`` is HTTP's, None where there was no answer; from ``wrong_from``
        on it is an error. ``error`` is the error's code; one beside a good status is that of an
        answer which broke off."""

    def close(self) -> None:
        """Sends what is left, for a few seconds at most. Blocks."""


def connect(endpoint: str, service: str) -> Telemetry:
    """Telemetry that goes to ``endpoint``, the URL of a collector that takes OTLP over HTTP, such
    as ``http://127.0.0.1:4318``. ``service`` is what this process is called there, unless
    ``OTEL_SERVICE_NAME`` says otherwise; the SDK reads its other variables too. Raises
    ``TelemetryMissing``.
    """
    try:
        from dev_opsgpt.transport.otlp import Otlp
    except ImportError as error:
        raise TelemetryMissing(
            "otlp_endpoint is set, but OpenTelemetry is not installed "
            f"(pip install 'dev-opsgpt[telemetry]'): {error}"
        ) from None
    return Otlp(endpoint, service)
