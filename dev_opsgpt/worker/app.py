"""A worker's HTTP application: the two surfaces, health, release, and who may call."""

import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dev_opsgpt.protocol.errors import AuthenticationFailed
from dev_opsgpt.protocol.fastchat import Load
from dev_opsgpt.transport.asgi import CancelOnDisconnect, bearer, read_body, send_json
from dev_opsgpt.transport.router import Router, Routes
from dev_opsgpt.transport.server import App, Receive, Scope, Send
from dev_opsgpt.transport.telemetry import Telemetry
from dev_opsgpt.worker.admission import Admission
from dev_opsgpt.worker.conversation import MarkedConversation
from dev_opsgpt.worker.engine import Engine, Hosted
from dev_opsgpt.worker.fastchat_surface import FastChatSurface, decode
from dev_opsgpt.worker.figures import figures_page
from dev_opsgpt.worker.observed import Observed
from dev_opsgpt.worker.openai_surface import OpenAISurface
from dev_opsgpt.worker.release import ReleaseRequest

Release = Callable[[ReleaseRequest], Awaitable[dict[str, Any]]]


def create_app(
    engine: Engine,
    names: list[str],
    admission: Admission,
    *,
    secret: str | None,
    fastchat_clients: bool = False,
    max_body: int = 32 << 20,
    stream_interval: int = 2,
    release: Release,
    address: str = "",
    clock: Callable[[], float] = time.time,
    telemetry: Telemetry | None = None,
) -> App:
    """The application of a worker that serves ``engine`` under ``names``.

    Callers show ``secret`` as a Bearer token (none configured: all may call); with
    ``fastchat_clients`` FastChat's routes are open to callers without it. ``release`` is called
    for ``POST /release``. ``telemetry`` takes a span for each request. ``address`` is the worker's
    URL, for the figures of a server beside it.
    """
    openai = OpenAISurface(engine, names, admission, max_body=max_body, clock=clock)
    conversation = MarkedConversation(secret or "")
    hosted = engine if isinstance(engine, Hosted) else None

    async def load() -> Load:
        if hosted is not None:
            return await hosted.measure()
        return Load(admission.running, admission.waiting, admission.limit)

    fastchat = FastChatSurface(
        engine,
        names,
        admission,
        conversation,
        max_body=max_body,
        interval=stream_interval,
        load=load,
    )

    ours: Routes = {**openai.routes(), "/release": {"POST": _released(release, max_body)}}
    theirs = fastchat.routes()
    figures: Routes = {}
    if hosted is not None:
        figures = {"/metrics": {"GET": figures_page(hosted, address, secret)}}
    routes: Routes = {
        **figures,
        **_guarded(ours, secret),
        **(theirs if fastchat_clients else _guarded(theirs, secret)),
        "/health": {"GET": _health(names, hosted, load)},
    }
    return CancelOnDisconnect(Observed(Router(routes), telemetry))


def _health(names: list[str], hosted: Hosted | None, load: Callable[[], Awaitable[Load]]) -> App:
    async def health(scope: Scope, receive: Receive, send: Send) -> None:
        alive = hosted is None or hosted.direct is not None
        now = await load()
        told = {"running": now.running, "waiting": now.waiting}
        status = "ok" if alive else "restarting"
        await send_json(send, 200 if alive else 503, {"status": status, "models": names} | told)

    return health


def _released(release: Release, max_body: int) -> App:
    async def released(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, max_body)
        await send_json(send, 200, await release(decode(ReleaseRequest, body or b"{}")))

    return released


def _guarded(routes: Routes, secret: str | None) -> Routes:
    def guard(handler: App) -> App:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if secret and not hmac.compare_digest((bearer(scope) or "").encode(), secret.encode()):
                raise AuthenticationFailed("This worker is called by its own gateway only.")
            await handler(scope, receive, send)

        return guarded

    return {
        path: {method: guard(handler) for method, handler in methods.items()}
        for path, methods in routes.items()
    }
