"""What a gateway is made with, read from the settings and from its place among the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from dev_opsgpt.config import Settings
from dev_opsgpt.launcher.folders import data_folder

if TYPE_CHECKING:
    from dev_opsgpt.gateway.options import GatewayOptions
    from dev_opsgpt.gateway.routes import Route


@dataclass(frozen=True)
class GatewayPlace:
    """Where one of a launcher's gateways stands: its port, which ``shares_port`` says that others
    listen on as well, the URL of its controller, the models that are known to be on their way, its
    number among ``count`` gateways, and the folder that these share."""

    port: int
    controller: str
    declared: tuple[str, ...] = ()
    index: int = 0
    count: int = 1
    run_dir: Path | None = None
    shares_port: bool = False


def gateway_options(settings: Settings, place: GatewayPlace) -> "GatewayOptions":
    """What a gateway is made with, and what it is told when the configuration changes."""
    from dev_opsgpt.gateway.options import GatewayOptions
    from dev_opsgpt.routing.breaker import BreakerOptions

    section = settings.gateway
    attached_keys = {
        worker.openai_server: worker.api_key.get_secret_value()
        for worker in settings.workers.values()
        if worker.openai_server is not None and worker.api_key is not None
    }
    return GatewayOptions(
        host=section.host,
        port=place.port,
        controller=place.controller,
        secret=secret_of(settings),
        api_keys=_clear(section.api_keys),
        admin_keys=_clear(section.admin_keys),
        declared=place.declared,
        attached_keys=attached_keys,
        route=_route(settings, "default"),
        routes={name: _route(settings, name) for name in section.routes if name != "default"},
        retry_budget=section.retry_budget,
        breaker=BreakerOptions(**section.breaker.model_dump()),
        llm_base_url=section.llm_base_url,
        max_body_size=section.max_body_size,
        connect_timeout=section.connect_timeout,
        read_timeout=section.read_timeout,
        drain_timeout=settings.drain_timeout,
        database_url=database_url(settings),
        redis_url=settings.redis_url.get_secret_value() if settings.redis_url else None,
        usage=section.usage,
        usage_days=section.usage_days,
        access_log=section.access_log,
        log_format=section.log_format,
        otlp_endpoint=section.otlp_endpoint,
        index=place.index,
        count=place.count,
        reuse_port=place.shares_port,
        runtime_dir=place.run_dir,
    )


def _route(settings: Settings, model: str) -> "Route":
    """A model's route: its own entry above the one for all, key by key."""
    from dev_opsgpt.gateway.routes import Route

    routes = settings.gateway.routes
    inherited: dict[str, Any] = {
        "dispatch_method": settings.controller.dispatch_method,
        "retries": settings.gateway.retries,
    }
    found = dict(inherited)
    for name in dict.fromkeys(("default", model)):
        if entry := routes.get(name):
            found |= {key: getattr(entry, key) for key in entry.model_fields_set}
    found |= {key: value for key, value in inherited.items() if found[key] is None}
    return Route(**found | {"fallbacks": tuple(found.get("fallbacks", ()))})


def _clear(keys: Sequence[SecretStr]) -> tuple[str, ...]:
    return tuple(key.get_secret_value() for key in keys)


def database_url(settings: Settings) -> str:
    """The database of keys and usage."""
    if settings.database_url is not None and settings.database_url.get_secret_value():
        return settings.database_url.get_secret_value()
    return f"sqlite:///{data_folder(settings) / 'opsgpt.db'}"


def secret_of(settings: Settings) -> str | None:
    """The cluster's secret in clear."""
    return settings.secret.get_secret_value() if settings.secret else None
