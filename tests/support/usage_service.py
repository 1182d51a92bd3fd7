"""A server that answers the usage routes only, over real HTTP, with three tokens."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from dev_opsgpt.gateway.usage_api import Seen, create_usage_routes
from dev_opsgpt.protocol import errors
from dev_opsgpt.protocol.errors import ApiError, AuthenticationFailed, InvalidRequest
from dev_opsgpt.storage.database import Database
from dev_opsgpt.transport.server import bind

ADMIN, CLIENT, KEYLESS = "sk-admin", "sk-client", "sk-keyless"
CLIENTS_KEY = "key_1"
_SEEN = {ADMIN: Seen(all=True), CLIENT: Seen(key=CLIENTS_KEY), KEYLESS: Seen()}


def who(request: Request) -> Seen:
    """What the bearer of a token may see."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token not in _SEEN:
        raise AuthenticationFailed("Incorrect API key provided.")
    return _SEEN[token]


def answer(_: Request, error: Exception) -> JSONResponse:
    """Errors as the gateway answers them."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        error = InvalidRequest(first["msg"], param=str(first["loc"][-1]))
    assert isinstance(error, ApiError)
    return JSONResponse(errors.openai_body(error), error.status, headers=errors.headers(error))


@contextmanager
def serving(database: Database, clock: Callable[[], float] = time.time) -> Iterator[str]:
    """The server's URL."""
    app = FastAPI()
    app.include_router(create_usage_routes(database, who, clock=clock))
    app.add_exception_handler(ApiError, answer)
    app.add_exception_handler(RequestValidationError, answer)
    sock = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        sock.close()
