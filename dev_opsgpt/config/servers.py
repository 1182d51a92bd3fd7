"""The controller's and the gateway's own settings."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from dev_opsgpt.config.models import Port, Seconds, Section

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def _check_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text.strip():
        raise ValueError("a key is empty")
    digest = text.removeprefix("sha256:")
    if digest != text and (len(digest) != 64 or not _HEX_DIGITS.issuperset(digest)):
        raise ValueError(
            "a key that begins with sha256: needs the 64 hexadecimal digits of the digest"
        )
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_check_key)]


class ControllerSettings(Section):
    """`FSCHAT_CONTROLLER`: the registry of workers."""

    host: str = "127.0.0.1"
    """Address the controller binds to. Left out: `DEFAULT_BIND_HOST`."""
    port: Port = 20001
    """Port the controller binds to."""
    advertise_host: str | None = None
    """Host name or address under which workers and gateways of other machines reach the controller,
    where it is not `host`."""
    dispatch_method: str = "least_load"
    """How a worker is chosen: `least_load` (weighs live load), `round_robin`, `lottery` (random,
    weighted by speed), `shortest_queue` (FastChat's meaning)."""
    fastchat_workers: list[str] = Field(default_factory=list)
    """Patterns of worker addresses that may register without the secret, such as
    `"http://127.0.0.1:2100*"`: for FastChat's own workers."""
    fastchat_clients: bool = False
    """Answer FastChat's read routes without the secret: for FastChat's own gateway and clients."""


class GatewaySettings(Section):
    """`FSCHAT_OPENAI_API`: the public port."""

    host: str = "127.0.0.1"
    """Address the gateway binds to. Left out: `DEFAULT_BIND_HOST`."""
    port: Port = 8888
    """Port of the OpenAI API."""
    api_keys: list[ApiKey] = Field(default_factory=list)
    """Keys that clients may use, plain or as `"sha256:<hex digest of the key>"`. Without any,
    every client is served, which is allowed on loopback only."""
    max_body_size: int = Field(default=33_554_432, ge=1)
    """Largest request body in bytes."""
    connect_timeout: Seconds = 5.0
    """Seconds to wait for a connection to a worker."""
    read_timeout: Seconds = 600.0
    """Seconds a worker may stay silent within one answer."""
    retries: int = Field(default=2, ge=0)
    """How many other workers are tried while nothing of an answer has been sent."""
    llm_base_url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    """Upstream for models that are not declared here; the client's own key goes along."""
    controller_address: str | None = Field(default=None, pattern=r"^https?://[^\s/]+$")
    """URL of the controller, where it is not the one of `FSCHAT_CONTROLLER`."""
