"""The settings for other eyes: their JSON schema, and a dump without secrets."""

from typing import Any

from dev_opsgpt.config.secrets import masked
from dev_opsgpt.config.settings import Settings


def json_schema() -> dict[str, Any]:
    """Give the JSON schema of the configuration, keys as in the files."""
    return Settings.model_json_schema(by_alias=True)


def masked_dump(settings: Settings) -> dict[str, Any]:
    """Give the effective settings as JSON-ready values under the files' keys, secrets as `***`.

    Secret is what is declared so, and what is named so: keys, tokens, passwords, also those inside
    URLs and among a provider's own keys.
    """
    shown: dict[str, Any] = masked(settings.model_dump(by_alias=True))
    return shown
