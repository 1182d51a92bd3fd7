"""Errors as OpenAI-compatible servers send them -> the errors of our own table.

Read are OpenAI's ``{"error": {...}}``, the bare objects of other vendors, FastChat's
``{"text", "error_code"}``, and llama.cpp's numbers in ``code``.
"""

from typing import Any

import msgspec

from dev_opsgpt.protocol.errors import (
    FROM_STATUS,
    ApiError,
    ContextLengthExceeded,
    InvalidRequest,
    RateLimited,
    Unavailable,
    Unsupported,
    UpstreamFailed,
)

_BY_NAME: dict[str, type[ApiError]] = {
    "exceed_context_size_error": ContextLengthExceeded,
    "context_length_exceeded": ContextLengthExceeded,
    "invalid_request_error": InvalidRequest,
    "not_supported_error": Unsupported,
    "rate_limit_error": RateLimited,
    "rate_limit_exceeded": RateLimited,
    "unavailable_error": Unavailable,
}
_LONGEST = 1000


def answer_error(status: int, body: bytes, *, retry_after: float | None = None) -> ApiError:
    """The error that an answer of this status and body stands for.

    A refused credential (401, 403) is this server's trouble with its upstream, not the client's.
    """
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = None
    found = _details(data) if isinstance(data, dict) else None
    return _error(found or {}, status, retry_after)


def error_of(event: dict[str, Any]) -> ApiError | None:
    """The error that an event of a stream carries, if it carries one."""
    if event.get("choices") and not event.get("error"):
        return None
    found = _details(event)
    if found is None:
        return None
    code = found.get("code")
    return _error(found, code if isinstance(code, int) and 400 <= code < 600 else 0, None)


def _details(data: dict[str, Any]) -> dict[str, Any] | None:
    error = data.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str) and error:
        return {"message": error}
    if data.get("error_code"):
        return {"message": str(data.get("text") or "")}
    if data.get("object") == "error" or ("message" in data and "code" in data):
        return data
    return None


def _error(found: dict[str, Any], status: int, retry_after: float | None) -> ApiError:
    message = found.get("message")
    text = message if isinstance(message, str) and message else _unexplained(status)
    param = found.get("param")
    kind = _kind(found, status)
    code = found.get("code")
    # A code of a server that failed says nothing about the request; our own row's code does.
    keep = isinstance(code, str) and issubclass(kind, InvalidRequest) and code
    return kind(
        text[:_LONGEST],
        param=param if isinstance(param, str) else None,
        code=code if keep else None,
        retry_after=retry_after,
    )


def _unexplained(status: int) -> str:
    """What is told of an error that says nothing, or not in a form that is known."""
    return f"The model's server answered {status}." if status else "The model's server failed."


def _kind(found: dict[str, Any], status: int) -> type[ApiError]:
    names = [name for name in (found.get("code"), found.get("type")) if isinstance(name, str)]
    by_name = next((_BY_NAME[name] for name in names if name in _BY_NAME), None)
    by_status = FROM_STATUS.get(status)
    if by_name is not None and (status == 0 or by_status is None or by_status is InvalidRequest):
        return by_name if status < 500 and status not in (401, 403) else UpstreamFailed
    return by_status or UpstreamFailed
