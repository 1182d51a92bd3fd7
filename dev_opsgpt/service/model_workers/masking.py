"""Hides a provider's secrets in texts that leave this process: errors and log lines."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from dev_opsgpt.config.secrets import MASK, is_secret_name, mask_text

# A shorter value is a placeholder, and hiding it would spoil every text that has these letters.
SHORTEST = 6
_PLACEHOLDERS = {"EMPTY"}
_CREDENTIAL = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}")


class Mask:
    """Replaces secrets in a text by ``***``: the values given, and what looks like a credential
    in a header or a URL."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {s for s in secrets if len(s) >= SHORTEST and s not in _PLACEHOLDERS}
        longest_first = sorted(found, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if found else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return mask_text(_CREDENTIAL.sub(rf"\g<1> {MASK}", text))


def secrets_in(value: Any, name: object = "") -> Iterator[str]:
    """The strings in a configuration that are secret: by the name they stand under, or because
    they are the password of a URL."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from secrets_in(inner, key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secrets_in(inner, name)
    elif isinstance(value, str):
        if is_secret_name(name):
            yield value
        elif "@" in value and "://" in value:
            yield urlsplit(value).password or ""
