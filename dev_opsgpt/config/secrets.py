"""Which values are secret, and how they are shown without being told."""

import re
from typing import Any

from pydantic import SecretStr

MASK = "***"

_SECRET_NAME = re.compile(
    r"(?i)(secret|password|passwd|token$|credential|authorization|api_?keys?$|access_?key|^keys?$|[a-z]_key$)"
)
_URL_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_URL_QUERY = re.compile(r"(?i)(?<=[?&])([^=&\s]*(?:key|token|secret|password)[^=&\s]*=)[^&\s]+")


def is_secret_name(name: object) -> bool:
    """Tell whether a key of this name holds a secret (api_key, APISecret, access_token, ...)."""
    return isinstance(name, str) and _SECRET_NAME.search(name) is not None


def mask_text(text: str) -> str:
    """Hide the passwords and keys that stand inside URLs in `text`."""
    return _URL_QUERY.sub(rf"\g<1>{MASK}", _URL_USER.sub(MASK, text))


def wrap_secrets(value: Any, name: object = "") -> Any:
    """Give a copy of `value` with every string under a secret-looking name as a `SecretStr`."""
    if isinstance(value, dict):
        return {key: wrap_secrets(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [wrap_secrets(inner, name) for inner in value]
    return SecretStr(value) if isinstance(value, str) and is_secret_name(name) else value


def unwrap_secrets(value: Any) -> Any:
    """Give a copy of `value` with every `SecretStr` as plain text."""
    if isinstance(value, dict):
        return {key: unwrap_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [unwrap_secrets(inner) for inner in value]
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def masked(value: Any, name: object = "") -> Any:
    """Give a JSON-like copy of `value` for showing: secrets as `***`, empty ones as they are."""
    if isinstance(value, dict):
        return {key: masked(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, name) for inner in value]
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() not in ("", "EMPTY") else value.get_secret_value()
    if isinstance(value, str):
        return MASK if value not in ("", "EMPTY") and is_secret_name(name) else mask_text(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)
