"""What went wrong at a provider -> an error of our table, told without secrets."""

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from dev_opsgpt.protocol.errors import (
    FROM_FASTCHAT,
    FROM_STATUS,
    ApiError,
    AuthenticationFailed,
    UpstreamFailed,
    UpstreamTimeout,
)
from dev_opsgpt.service.model_workers.masking import Mask
from dev_opsgpt.service.model_workers.upstream import seconds
from dev_opsgpt.worker.openai_errors import answer_error

log = logging.getLogger(__name__)

_LONGEST = 1000
# A credential that the provider refuses is this server's, not the client's.
_REFUSED = {401, 403, 40101, 40102, 40103}
_KINDS = {**FROM_STATUS, **FROM_FASTCHAT}


def refused_credential() -> UpstreamFailed:
    """The provider does not take this server's key."""
    message = (
        "The provider of this model refused this server's credential; whoever runs the server "
        "has to check the model's key."
    )
    return UpstreamFailed(message, code="upstream_auth_failed")


def reported(item: dict[str, Any], mask: Mask, key: str = "error_code") -> ApiError:
    """The error that a method reports with a code, HTTP's or FastChat's: any other is the
    provider's failure."""
    error = item.get("error")
    details = error if isinstance(error, dict) else {}
    text = item.get("text") or item.get("msg") or details.get("message") or "The provider failed."
    code = _number(item.get(key))
    if code in _REFUSED:
        log.warning("a provider refused its credential: %s", mask(str(text)))
        return refused_credential()
    param = details.get("param")
    kind = _KINDS.get(code, UpstreamFailed)
    return kind(
        mask(str(text))[:_LONGEST],
        param=param if isinstance(param, str) else None,
        retry_after=seconds(item.get("retry_after")),
    )


def _number(code: Any) -> int:
    try:
        return int(code)
    except (TypeError, ValueError):
        return 500


def answered(
    status: int, body: bytes, mask: Mask, *, retry_after: float | None = None, own: bool = True
) -> ApiError:
    """The error for an HTTP answer of a provider. ``own`` says that it was asked with this
    server's credential, not with the client's."""
    text = mask(body.decode(errors="replace"))
    if status not in (401, 403):
        return answer_error(status, text.encode(), retry_after=retry_after)
    if not own:
        return AuthenticationFailed("The provider of this model refused your key.")
    log.warning("a provider refused its credential (%d): %s", status, text[:_LONGEST])
    return refused_credential()


def raised(error: BaseException, where: str, mask: Mask) -> ApiError:
    """The error for an exception out of a provider's method.

    The client learns the kind of exception only, for its text may hold addresses and tokens; the
    log gets the traceback with the known secrets hidden.
    """
    if isinstance(error, ApiError):
        error.message = mask(error.message)
        return error
    response = getattr(error, "response", None)
    if isinstance(getattr(response, "status_code", None), int):
        # raise_for_status() of httpx and of requests, and the errors of most SDKs.
        return _http_status(response, where, mask)
    log.error("%s failed\n%s", where, mask("".join(traceback.format_exception(error))))
    kind = type(error).__name__
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return UpstreamTimeout("The provider of this model did not answer in time.")
    return UpstreamFailed(f"The provider of this model failed ({kind}); see the server's log.")


def _http_status(response: Any, where: str, mask: Mask) -> ApiError:
    try:
        body = bytes(response.content)
    except Exception:
        # A stream that was not read has no content to show.
        body = b""
    if response.status_code not in (401, 403):
        told = mask(body.decode(errors="replace"))[:_LONGEST]
        log.warning("%s: the provider answered %d: %s", where, response.status_code, told)
    headers = getattr(response, "headers", None)
    again = headers.get("retry-after") if isinstance(headers, Mapping) else None
    return answered(response.status_code, body, mask, retry_after=seconds(again))
