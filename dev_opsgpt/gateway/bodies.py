"""Bodies of the routes that FastAPI answers: read within a bound before it sees them, and what it
finds wrong with them as one clear error that names the field."""

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.transport.asgi import read_body


async def held(request: Request, limit: int) -> Request:
    """The request with its body read. Raises ``RequestTooLarge`` past ``limit`` bytes, which
    FastAPI would go on to read, and ``ClientGone``."""
    body = await read_body(request.scope, request.receive, limit)

    async def replay() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, replay)


def no_json() -> InvalidRequest:
    """The body cannot be read."""
    return InvalidRequest("The request body is not valid JSON.", code="invalid_json")


def explain(error: RequestValidationError) -> InvalidRequest:
    """The first thing that is wrong, by the path of its field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return no_json()
    name = ".".join(str(step) for step in first["loc"][1:])
    if not name:
        # So is a body of another content type, whatever it holds: FastAPI does not read it.
        message = "The request body must be a JSON object, sent as Content-Type: application/json."
        return InvalidRequest(message, code="invalid_json")
    return InvalidRequest(f"'{name}': {first['msg']}", param=name)
