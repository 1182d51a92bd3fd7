"""Bodies in, answers out: bounded, checked, and errors in one shape."""

import re
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dev_opsgpt.protocol import errors
from dev_opsgpt.protocol.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
)
from dev_opsgpt.transport.asgi import JSON, read_body

MAX_BODY = 1024 * 1024

T = TypeVar("T")

_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_INDEX = re.compile(r"\[(\d+)\]")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")


async def raw(request: Request) -> bytes:
    """The request's body. Raises ``RequestTooLarge``, ``ClientGone``."""
    return await read_body(request.scope, request.receive, MAX_BODY)


async def body(request: Request, shape: type[T]) -> T:
    """The request's body as ``shape``. Raises ``InvalidRequest``, ``RequestTooLarge``."""
    return decode(await raw(request), shape)


def decode(data: bytes, shape: type[T]) -> T:
    """JSON as ``shape``. Raises ``InvalidRequest`` with ``param`` the path of the wrong field."""
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = f"The request body is not valid JSON: {error}"
        raise InvalidRequest(text, code="invalid_json") from None
    except RecursionError:
        text = "The request body is nested too deeply."
        raise InvalidRequest(text, code="invalid_json") from None


def reply(value: Any) -> Response:
    """A JSON answer; None is FastChat's ``null``."""
    return Response(msgspec.json.encode(value), media_type=JSON)


async def on_api_error(_: Request, error: Exception) -> Response:
    """An ``ApiError`` as an answer."""
    if not isinstance(error, ApiError):
        error = InternalError("The controller failed on this request.")
    headers = errors.headers(error)
    if isinstance(error, RequestTooLarge):
        headers["connection"] = "close"  # what is left of the body is no next request
    found = msgspec.json.encode(errors.openai_body(error))
    return Response(found, error.status, headers=headers, media_type=JSON)


async def on_http_error(request: Request, error: Exception) -> Response:
    """An unknown path or method as an answer."""
    wrong_method = isinstance(error, HTTPException) and error.status_code == 405
    shown = f"{request.method} {request.url.path}"
    found = (
        MethodNotAllowed(f"No route answers {shown}.")
        if wrong_method
        else NotFound(f"There is no route {shown}.")
    )
    answer = await on_api_error(request, found)
    if isinstance(error, HTTPException):
        answer.headers.update(error.headers or {})
    return answer


def _explain(text: str) -> InvalidRequest:
    match = _WHERE.fullmatch(text)
    what, path = (match["what"], match["path"] or "") if match else (text, "")
    path = _INDEX.sub(r".\1", path.replace("[...]", ""))
    missing = _MISSING.fullmatch(what)
    if missing:
        path = f"{path}.{missing[1]}" if path else missing[1]
        return InvalidRequest(f"'{path}' is missing", param=path)
    return InvalidRequest(f"'{path}': {what}" if path else what, param=path or None)
