"""``GET /metrics`` of a worker with a server of its own: that server's figures for Prometheus."""

import hmac
import ipaddress

from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.transport.asgi import bearer, header, send_body
from dev_opsgpt.transport.server import App, Receive, Scope, Send
from dev_opsgpt.worker.engine import Hosted

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# What a reverse proxy adds: behind one on this machine everybody's connection is local.
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")


def figures_page(hosted: Hosted, address: str, secret: str | None) -> App:
    """The page as a handler, shown to callers on this machine and to whoever shows the secret; to
    everybody where there is none. ``address`` is the worker's URL."""

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if secret and not _local(scope):
            shown = (bearer(scope) or "").encode()
            if not hmac.compare_digest(shown, secret.encode()):
                raise AuthenticationFailed("The metrics are shown to this machine and the cluster.")
        await send_body(send, 200, await hosted.figures(address), content_type=CONTENT_TYPE)

    return page


def _local(scope: Scope) -> bool:
    client = scope.get("client")
    if client is None or any(header(scope, name) is not None for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
