"""The controller's and the gateway's own settings."""

from typing import Annotated, Literal

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
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ControllerSettings(Section):
    """`FSCHAT_CONTROLLER`: the registry of workers."""

    host: str = "127.0.0.1"
    """Address the controller binds to. Left out: `DEFAULT_BIND_HOST`."""
    port: Port = 20001
    """Port the controller binds to."""
    advertise_host: str | None = None
    """Host name or address under which workers and gateways of other machines reach the controller,
    where it is not `host`."""
    dispatch_method: str = "prefix_cache"
    """How a worker is chosen, unless a model's route says otherwise: `least_load` (weighs live
    load), `round_robin`, `lottery` (random, weighted by speed), `shortest_queue` (FastChat's
    meaning), `power_of_two` (the less loaded of two drawn at random), `least_latency` (by the time
    to the first token of late), `session_affinity` (one session, one worker), `prefix_cache` (the
    worker that has seen most of the prompt)."""
    fastchat_workers: list[str] = Field(default_factory=list)
    """Patterns of worker addresses that may register without the secret, such as
    `"http://127.0.0.1:2100*"`: for FastChat's own workers."""
    fastchat_clients: bool = False
    """Answer FastChat's read routes without the secret: for FastChat's own gateway and clients."""


class RouteSettings(Section):
    """An entry of `FSCHAT_OPENAI_API["routes"]`: how requests for a model are routed. The entry
    `"default"` is for every model; a model's own entry goes before it, key by key."""

    dispatch_method: str | None = None
    """How a worker is chosen. Left out: `FSCHAT_CONTROLLER["dispatch_method"]`."""
    affinity_header: str = Field(default="x-session-id", pattern=r"^[A-Za-z0-9-]+$")
    """Request header that names a session for `session_affinity`. Without it the body's
    `prompt_cache_key`, then its `user` does."""
    request_timeout: Seconds | None = None
    """Seconds that a request may take, from its arrival to the end of its answer. A client may ask
    for less with the header `x-request-timeout`."""
    first_token_timeout: Seconds | None = None
    """Seconds until the first byte of a streamed answer; after it another worker is tried. What
    waits for plain answers is `read_timeout`, or `hedge_after`."""
    retries: int | None = Field(default=None, ge=0)
    """How many other workers are tried while nothing of an answer has been sent. Left out:
    `FSCHAT_OPENAI_API["retries"]`."""
    fallbacks: list[str] = Field(default_factory=list)
    """Models that are asked, in this order, when nobody can serve this one. One that is known not
    to be able to do what the request asks for is passed over."""
    hedge_after: Seconds | None = None
    """Seconds without a first byte after which a second worker is asked as well; the first to
    answer wins. Counts towards `retry_budget`. Left out: never."""
    queue_size: int = Field(default=1000, ge=0)
    """Requests that may wait in the gateway while every worker of the model is busy."""
    queue_timeout: Seconds = 60.0
    """Seconds that a request may wait there."""
    load_timeout: Seconds = 300.0
    """Seconds that a request waits for its model to be loaded; for others to make room for it,
    `queue_timeout`."""
    context_length: int | None = Field(default=None, ge=1)
    """Tokens that the model can take, where its worker does not say."""
    tools: bool | None = None
    """Whether the model can call tools, where its worker does not say."""
    vision: bool | None = None
    """Whether the model can see images, where its worker does not say."""
    json_output: bool | None = None
    """Whether the model can be held to JSON, where its worker does not say."""
    stream_usage: bool = True
    """Whether the model's server is asked for the usage of every stream, so that it can be counted.
    False for servers that refuse `stream_options`."""
    input_price: Price = 0.0
    """Price of a million prompt tokens, in US dollars or whatever unit budgets are in."""
    cached_input_price: Price | None = None
    """Price of a million prompt tokens that the model had cached. Left out: `input_price`."""
    output_price: Price = 0.0
    """Price of a million completion tokens."""


class BreakerSettings(Section):
    """`FSCHAT_OPENAI_API["breaker"]`: when a worker that fails is left alone for a while."""

    failures: int = Field(default=5, ge=1)
    """Failures in a row, or ..."""
    failure_rate: float = Field(default=0.5, gt=0, le=1)
    """... this share of failures, with at least `failures` of them, ..."""
    window: Seconds = 30.0
    """... within so many seconds open a worker's breaker."""
    open_for: Seconds = 5.0
    """Seconds until a single request tries it again; doubled with every failed try."""
    open_for_most: Seconds = 60.0
    """Longest such pause, in seconds."""


class GatewaySettings(Section):
    """`FSCHAT_OPENAI_API`: the public port."""

    host: str = "127.0.0.1"
    """Address the gateway binds to. Left out: `DEFAULT_BIND_HOST`."""
    port: Port = 8888
    """Port of the OpenAI API."""
    api_keys: list[ApiKey] = Field(default_factory=list)
    """Keys that clients may use, plain or as `"sha256:<hex digest of the key>"`, without limits;
    those with limits are made by `opsgpt keys`. Without any key, every client is served, which is
    allowed on loopback only."""
    max_body_size: int = Field(default=33_554_432, ge=1)
    """Largest request body in bytes."""
    connect_timeout: Seconds = 5.0
    """Seconds to wait for a connection to a worker."""
    read_timeout: Seconds = 600.0
    """Seconds a worker may stay silent within one answer."""
    retries: int = Field(default=2, ge=0)
    """How many other workers are tried while nothing of an answer has been sent."""
    retry_budget: float = Field(default=0.2, ge=0, le=1)
    """Retries as a share of all requests of the last seconds; beyond it none are made, so that
    retries do not bury workers that are in trouble. Ten a second are always allowed, and one for a
    request whose worker broke off."""
    routes: dict[str, RouteSettings] = Field(default_factory=dict)
    """How requests are routed: `"default"` for every model, and one entry a model."""
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    """When a worker that fails is left alone."""
    gateway_workers: int = Field(default=1, ge=1, le=64)
    """Gateway processes on the port."""
    admin_keys: list[ApiKey] = Field(default_factory=list)
    """Keys for the admin API (`/admin/...`), plain or hashed as in `api_keys`. Without any, the
    cluster's secret is the only one."""
    usage: bool = True
    """Whether every request leaves a record in the database."""
    usage_days: int | None = Field(default=None, ge=1)
    """Days for which records are kept; what a key spent of a total budget is forgotten with them.
    Left out: for ever."""
    access_log: bool = False
    """Whether every request is written to the log, one line each."""
    log_format: Literal["text", "json"] = "text"
    """Form of the gateway's log lines."""
    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    """Where traces are sent (OTLP over HTTP), such as `"http://127.0.0.1:4318"`. Left out: none
    are made; a client's trace context is passed on all the same."""
    llm_base_url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    """Upstream for models that are not declared here; the client's own key goes along."""
    controller_address: str | None = Field(default=None, pattern=r"^https?://[^\s/]+$")
    """URL of the controller, where it is not the one of `FSCHAT_CONTROLLER`."""
