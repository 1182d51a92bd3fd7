"""A service's route table as an ASGI application: exact paths, errors in one shape."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType

from dev_opsgpt.protocol.errors import (
    ApiError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
)
from dev_opsgpt.transport.asgi import AnswerCut, ClientGone, refuse_body, send_error
from dev_opsgpt.transport.server import App, Receive, Scope, Send

log = logging.getLogger(__name__)

Routes = Mapping[str, Mapping[str, App]]
Lifespan = Callable[[], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


class Router:
    """Answers each request with the handler of its path and method.

    ``routes`` maps a path to its methods and these to handlers, which are ASGI applications. A
    handler raises ``ApiError`` only before it begins its answer. What is in no route goes to
    ``fallback``, or is a 404. ``lifespan`` is entered before the first request and left after the
    last. ``elsewhere`` names the method of each path that is answered before it comes here, so that
    other methods get the right error.
    """

    def __init__(
        self,
        routes: Routes,
        *,
        fallback: App | None = None,
        lifespan: Lifespan = _nothing,
        elsewhere: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._routes = routes
        self._elsewhere = elsewhere
        self._fallback = fallback
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or runs the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            await self._handler(scope)(scope, receive, send)
        except RequestTooLarge as error:
            await refuse_body(receive, send, error)
        except ApiError as error:
            await send_error(send, error)
        except (AnswerCut, ClientGone):
            raise
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            await send_error(send, InternalError("The server failed to answer; see its log."))

    def _handler(self, scope: Scope) -> App:
        path, method = scope["path"], scope["method"]
        methods = self._routes.get(path)
        handler = methods.get(method) if methods is not None else None
        if handler is not None:
            return handler
        if methods is not None:
            raise _not_allowed(path, method, ", ".join(methods))
        if path in self._elsewhere:
            raise _not_allowed(path, method, self._elsewhere[path])
        if self._fallback is None:
            raise NotFound(f"There is no {path} here.")
        return self._fallback

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            log.exception("the application could not start or stop")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


def _not_allowed(path: str, method: str, allowed: str) -> MethodNotAllowed:
    message = f"{path} answers {allowed}, not {method}."
    return MethodNotAllowed(message, headers={"allow": allowed})
