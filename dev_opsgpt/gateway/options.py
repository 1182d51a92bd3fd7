"""What a gateway is made with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dev_opsgpt.gateway.routes import Route
from dev_opsgpt.routing.breaker import BreakerOptions


@dataclass(frozen=True)
class GatewayOptions:
    """How a gateway runs. Times are in seconds, sizes in bytes; most fields are those of
    ``config.GatewaySettings``, which says what each means.

    ``controller`` is its URL; ``declared`` the models that the configuration starts;
    ``attached_keys`` maps the URL of an attached OpenAI server to its key. ``route`` is for every
    model that has none of its own in ``routes``. Without a ``database_url`` there are no keys but
    the configured ones, and no records of usage. ``index`` tells this process from the ``count``
    that share the port, and ``runtime_dir`` is a folder that these, and nobody else, have in
    common.
    """

    host: str = "127.0.0.1"
    port: int = 8888
    controller: str = "http://127.0.0.1:20001"
    secret: str | None = None
    api_keys: tuple[str, ...] = ()
    admin_keys: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    attached_keys: Mapping[str, str] = field(default_factory=dict)
    route: Route = field(default_factory=Route)
    routes: Mapping[str, Route] = field(default_factory=dict)
    retry_budget: float = 0.2
    breaker: BreakerOptions = field(default_factory=BreakerOptions)
    llm_base_url: str | None = None
    max_body_size: int = 32 << 20
    connect_timeout: float = 5.0
    read_timeout: float = 600.0
    drain_timeout: float = 30.0
    database_url: str | None = None
    redis_url: str | None = None
    usage: bool = True
    usage_days: int | None = None
    access_log: bool = False
    log_format: Literal["text", "json"] = "text"
    otlp_endpoint: str | None = None
    index: int = 0
    count: int = 1
    reuse_port: bool = False
    runtime_dir: Path | None = None
