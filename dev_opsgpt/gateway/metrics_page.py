"""``GET /metrics``: the page that Prometheus reads, and who may read it."""

from collections.abc import Callable

from dev_opsgpt.gateway.auth import is_local
from dev_opsgpt.gateway.exporter import Exporter
from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.transport.asgi import bearer, header, send_body
from dev_opsgpt.transport.server import App, Receive, Scope, Send

PATH = "/metrics"
# What a reverse proxy adds: behind one on this machine everybody's connection is local.
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")


def create_metrics_page(exporter: Exporter, check: Callable[[Scope], object]) -> App:
    """The page as a handler. ``check`` raises ``ApiError`` for callers who may not read it."""

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        check(scope)
        accept = (header(scope, b"accept") or b"").decode("latin-1")
        body, content_type = await exporter.page(accept)
        await send_body(send, 200, body, content_type=content_type)

    return page


def reader_check(is_admin: Callable[[str | None], bool]) -> Callable[[Scope], None]:
    """The rule: callers on this machine, and whoever shows an admin key. ``is_admin`` tells
    whether a token is one; the check raises ``AuthenticationFailed``."""

    def check(scope: Scope) -> None:
        client = scope.get("client")
        local = client is not None and is_local(client[0])
        if local and all(header(scope, name) is None for name in _FORWARDED):
            return
        if not is_admin(bearer(scope)):
            raise AuthenticationFailed("The metrics are shown to this machine and to admin keys.")

    return check
