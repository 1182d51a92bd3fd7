"""How a key stands with its limits, and how clients are told: headers, and errors in OpenAI's
shape."""

import math

from msgspec import Struct

from dev_opsgpt.gateway.key import Key
from dev_opsgpt.protocol.errors import QuotaExceeded, RateLimited, RequestsLimited, TokensLimited
from dev_opsgpt.routing.limits import Span, duration

# A request in flight ends when it ends; this is when it makes sense to ask again.
PAUSE = 1.0


class Standing(Struct):
    """How a key stands with its limits when it is refused, nothing of this request counted.

    ``requests`` and ``tokens`` are those of the last minute. In ``*_reset`` seconds nothing of the
    minute would be counted any more; in ``*_wait`` seconds there is room for this request.
    ``spent`` is of the budget period ``span``, at Unix time ``at``.
    """

    requests: int
    requests_reset: float
    requests_wait: float
    tokens: int
    tokens_reset: float
    tokens_wait: float
    spent: float
    span: Span
    at: float


def rate_lines(
    rpm: int | None, requests: int, requests_reset: str, tpm: int | None, tokens: int, reset: str
) -> bytes:
    """The ``x-ratelimit-*`` header lines of the limits that are set, each with its CRLF."""
    text = ""
    if rpm is not None:
        text = (
            f"x-ratelimit-limit-requests: {rpm}\r\n"
            f"x-ratelimit-remaining-requests: {requests}\r\n"
            f"x-ratelimit-reset-requests: {requests_reset}\r\n"
        )
    if tpm is not None:
        text += (
            f"x-ratelimit-limit-tokens: {tpm}\r\n"
            f"x-ratelimit-remaining-tokens: {tokens}\r\n"
            f"x-ratelimit-reset-tokens: {reset}\r\n"
        )
    return text.encode()


def refusal(key: Key, tokens: int, standing: Standing) -> RateLimited:
    """The error for a request that is over a limit; of several limits, the most lasting one."""
    if key.tpm is not None and tokens > key.tpm:
        return TokensLimited(
            f"Request too large for this key on tokens per min (TPM): Limit {key.tpm}, "
            f"Requested {tokens}. Shorten the input, or ask for fewer output tokens.",
            headers=_headers(key, standing),
        )
    if key.budget is not None and standing.spent >= key.budget:
        return _quota_exceeded(key, key.budget, standing)
    if key.tpm is not None and standing.tokens + tokens > key.tpm:
        wait = standing.tokens_wait
        return TokensLimited(
            f"Rate limit reached for this key on tokens per min (TPM): Limit {key.tpm}, "
            f"Used {standing.tokens}, Requested {tokens}. Please try again in {duration(wait)}.",
            retry_after=wait,
            headers=_headers(key, standing, wait),
        )
    if key.rpm is not None and standing.requests >= key.rpm:
        wait = standing.requests_wait
        return RequestsLimited(
            f"Rate limit reached for this key on requests per min (RPM): Limit {key.rpm}, "
            f"Used {standing.requests}, Requested 1. Please try again in {duration(wait)}.",
            retry_after=wait,
            headers=_headers(key, standing, wait),
        )
    return RequestsLimited(
        f"Rate limit reached for this key on concurrent requests: Limit {key.concurrent}. "
        "Please try again when one of them has ended.",
        retry_after=PAUSE,
        headers=_headers(key, standing, PAUSE),
    )


def _quota_exceeded(key: Key, budget: float, standing: Standing) -> QuotaExceeded:
    left = standing.span.end - standing.at if math.isfinite(standing.span.end) else None
    until = f" It is renewed in {duration(math.ceil(left))}." if left is not None else ""
    period = {"total": "", "day": " for this day (UTC)", "month": " for this month (UTC)"}
    return QuotaExceeded(
        f"This key's budget{period[key.budget_period]} is spent: {budget:g}.{until}",
        retry_after=left,
        headers=_headers(key, standing, left),
    )


def _headers(key: Key, standing: Standing, wait: float | None = None) -> dict[str, str]:
    """The rate lines for an error, and the exact wait in milliseconds, which OpenAI's clients go
    by."""
    lines = rate_lines(
        key.rpm,
        max(0, (key.rpm or 0) - standing.requests),
        duration(standing.requests_reset),
        key.tpm,
        max(0, (key.tpm or 0) - standing.tokens),
        duration(standing.tokens_reset),
    )
    found = dict(line.split(": ", 1) for line in lines.decode().splitlines())
    if wait is not None:
        found["retry-after-ms"] = str(max(1, math.ceil(wait * 1000)))
    return found
