"""Takes what looks like a secret out of texts that are written down."""

import re

MASK = "***"

# What has none of these, as most lines do, has nothing to hide: twenty searches for a plain string
# take a microsecond, the rules take thirty.
_MARKS = (
    *("bearer", "basic", "key", "token", "secret", "passw", "://"),
    *("sk-", "rk-", "pk-", "gsk_", "hf_", "ghp_", "gho_", "ghs_", "xai-", "aiza", "eyj"),
)
_SHORTEST = 8
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # user:password@ and ?key=... in URLs.
    (re.compile(r"(?<=://)[^/?#\s\"']+(?=@)"), MASK),
    (
        re.compile(
            r"(?i)(?<=[?&])([^=&\s]{0,32}(?:key|token|secret|password)[^=&\s]{0,32}=)[^&\s\"']+"
        ),
        rf"\g<1>{MASK}",
    ),
    # Headers, as text or in the form of Python's or JSON's pairs.
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), rf"\g<1> {MASK}"),
    (
        re.compile(
            r"(?i)\b((?:x-)?(?:api|access|secret|client|auth)[_-]?(?:key|token|secret)|password"
            r"|passwd|secret)(\\?[\"']?\s*[:=]\s*b?\\?[\"']?)(?!\*\*\*)[^\s\"'\\,;&)}\]]{4,}"
        ),
        rf"\g<1>\g<2>{MASK}",
    ),
    # The keys of the usual vendors, and of ours, by how they begin; and JSON web tokens.
    (re.compile(r"\b(sk|rk|pk)-[A-Za-z0-9_-]{8,}"), rf"\g<1>-{MASK}"),
    (re.compile(r"\b(gsk|hf|ghp|gho|ghs)_[A-Za-z0-9]{8,}"), rf"\g<1>_{MASK}"),
    (re.compile(r"\bxai-[A-Za-z0-9]{8,}"), f"xai-{MASK}"),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{16,}"), f"AIza{MASK}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), f"eyJ{MASK}"),
)


def mask(text: str) -> str:
    """The text with ``***`` for credentials in headers, URLs and pairs, and for whatever has the
    form of a vendor's key. It errs on the side of hiding."""
    if len(text) < _SHORTEST:
        return text
    lower = text.lower()
    if not any(mark in lower for mark in _MARKS):
        return text
    for rule, replacement in _RULES:
        text = rule.sub(replacement, text)
    return text
