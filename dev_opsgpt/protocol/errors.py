"""The one table of errors: what went wrong -> HTTP status, OpenAI error body, FastChat code.

OpenAI's shape is ``{"error": {"message", "type", "param", "code"}}``; FastChat's is
``{"text", "error_code"}`` with the numbers of its ``ErrorCode`` enumeration. Every error that
leaves this project is an ``ApiError``; a new kind is a new row, which is a subclass here.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar


class ApiError(Exception):
    """An error that a client is told about.

    ``message`` is a sentence for people, ``param`` the dotted path of the offending field,
    ``retry_after`` a number of seconds for the Retry-After header, ``headers`` further headers of
    the answer. Never put a secret in it.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = "internal_error"
    fastchat_code: ClassVar[int] = 50001

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after = retry_after
        self.headers = headers


class InternalError(ApiError):
    """A fault of this server."""


class OutOfMemory(InternalError):
    """The engine ran out of memory while it served the request."""

    default_code = "out_of_memory"
    fastchat_code = 50002


class InvalidRequest(ApiError):
    """The request is malformed or a field has a value it cannot have."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"
    fastchat_code = 40001


class OutOfRange(InvalidRequest):
    """A number outside the range its field allows."""

    default_code = "out_of_range"
    fastchat_code = 40302


class Unsupported(InvalidRequest):
    """A valid field that the model behind this name cannot honour."""

    default_code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt does not fit the model's context."""

    default_code = "context_length_exceeded"
    fastchat_code = 40303


class RequestTooLarge(InvalidRequest):
    """The body is larger than the server takes."""

    status = 413
    default_code = "request_too_large"


class HeadersTooLarge(InvalidRequest):
    """The request's first line and headers are larger than the server takes."""

    status = 431
    default_code = "headers_too_large"


class AuthenticationFailed(ApiError):
    """No credential, or a wrong one."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"
    fastchat_code = 40101


class PermissionDenied(ApiError):
    """The credential is known and not allowed to do this."""

    status = 403
    type = "invalid_request_error"
    default_code = "permission_denied"
    fastchat_code = 40103


class NotFound(ApiError):
    """No such path or object."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"
    fastchat_code = 40001


class ModelNotFound(NotFound):
    """No model of that name is known."""

    default_code = "model_not_found"
    fastchat_code = 40301


class MethodNotAllowed(ApiError):
    """The path exists; it does not answer this method."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"
    fastchat_code = 40001


class Conflict(ApiError):
    """What is asked for cannot be done as things stand now."""

    status = 409
    type = "invalid_request_error"
    default_code = "conflict"
    fastchat_code = 40001


class RateLimited(ApiError):
    """The client is over its limit."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    fastchat_code = 42901


class RequestsLimited(RateLimited):
    """The client is over its limit of requests, in a minute or at once."""

    type = "requests"


class TokensLimited(RateLimited):
    """The client is over its limit of tokens."""

    type = "tokens"


class QuotaExceeded(RateLimited):
    """The client's budget is spent."""

    type = "insufficient_quota"
    default_code = "insufficient_quota"


class Overloaded(RateLimited):
    """The worker's queue is full, or the request waited in it for too long."""

    default_code = "overloaded"
    fastchat_code = 42903


class UpstreamFailed(ApiError):
    """The worker or provider behind this server broke or answered nonsense."""

    status = 502
    default_code = "upstream_failed"


class Unavailable(ApiError):
    """Nobody can serve this now: no live worker, or a worker that is draining."""

    status = 503
    default_code = "unavailable"
    fastchat_code = 50005


class UpstreamTimeout(ApiError):
    """The worker or provider did not answer in time."""

    status = 504
    default_code = "upstream_timeout"
    fastchat_code = 50006


def openai_body(error: ApiError) -> dict[str, Any]:
    """The error as OpenAI's JSON body."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def fastchat_body(error: ApiError) -> dict[str, Any]:
    """The error as a FastChat frame or reply: the text and its numeric code."""
    return {"text": error.message, "error_code": error.fastchat_code}


def headers(error: ApiError) -> dict[str, str]:
    """Headers that belong to the error: ``Retry-After`` in whole seconds, ``WWW-Authenticate``,
    and its own."""
    found = dict(error.headers or {})
    if error.retry_after is not None:
        # Rounded up: who comes a moment early is refused again.
        found["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, AuthenticationFailed):
        found["www-authenticate"] = "Bearer"
    return found


# The table read backwards: what an answer of another server means to a client of ours. What is
# not listed is that server's failure: its other 5xx, and its refusal of *our* credential.
FROM_FASTCHAT: Mapping[int, type[ApiError]] = MappingProxyType(
    {
        40001: InvalidRequest,
        40301: ModelNotFound,
        40302: OutOfRange,
        40303: ContextLengthExceeded,
        42901: RateLimited,
        42902: RateLimited,
        42903: Overloaded,
        50002: OutOfMemory,
        50005: Unavailable,
        50006: UpstreamTimeout,
    }
)
FROM_STATUS: Mapping[int, type[ApiError]] = MappingProxyType(
    {
        400: InvalidRequest,
        404: ModelNotFound,
        408: UpstreamTimeout,
        413: RequestTooLarge,
        422: InvalidRequest,
        429: RateLimited,
        501: Unsupported,
        503: Unavailable,
        504: UpstreamTimeout,
    }
)
