"""What a well-formed configuration may still get wrong: checks that compare keys."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from dev_opsgpt.config.check_models import MODEL_CHECKS
from dev_opsgpt.config.check_routes import ROUTE_CHECKS
from dev_opsgpt.config.check_vllm import VLLM_CHECKS
from dev_opsgpt.config.paths import is_loopback
from dev_opsgpt.config.plan import explicit_ports, kind_of, wanted_models
from dev_opsgpt.config.problems import KeyPath, Problem, nearest, spell
from dev_opsgpt.config.settings import Settings

DISPATCH_METHODS = (
    "least_load",
    "round_robin",
    "lottery",
    "shortest_queue",
    "power_of_two",
    "least_latency",
    "session_affinity",
    "prefix_cache",
)

_DATABASES = ("sqlite", "postgresql", "postgres")
_REDIS = ("redis", "rediss", "unix")


def check_settings(settings: Settings) -> list[Problem]:
    """Give everything doubtful or unworkable, errors first; an empty list means all is well.

    Looks at the disk for model files, and at nothing else outside `settings`.
    """
    checks = (*_SERVER_CHECKS, *ROUTE_CHECKS, *MODEL_CHECKS, *VLLM_CHECKS)
    problems = [problem for check in checks for problem in check(settings)]
    problems.extend(settings.origin.notes)
    return sorted(problems, key=lambda problem: problem.severity)


def _open_gateway(settings: Settings) -> Iterator[Problem]:
    gateway, path = settings.gateway, ("FSCHAT_OPENAI_API", "host")
    if not is_loopback(gateway.host) and not gateway.api_keys:
        message = f"{gateway.host} can be reached from other machines, and no client keys are set"
        mend = "Set OPSGPT_API_KEYS=<key>[,<key>...], or bind to 127.0.0.1"
        yield _error(settings, path, message, mend)


def _open_controller(settings: Settings) -> Iterator[Problem]:
    host, path = settings.controller.host, ("FSCHAT_CONTROLLER", "host")
    if not is_loopback(host) and settings.secret is None:
        message = f"{host} can be reached from other machines, and no secret is set"
        mend = "Set the same OPSGPT_SECRET on every machine, or bind to 127.0.0.1"
        yield _error(settings, path, message, mend)


def _unknown_dispatch(settings: Settings) -> Iterator[Problem]:
    chosen: dict[KeyPath, str | None] = {
        ("FSCHAT_CONTROLLER", "dispatch_method"): settings.controller.dispatch_method
    }
    for model, route in settings.gateway.routes.items():
        chosen["FSCHAT_OPENAI_API", "routes", model, "dispatch_method"] = route.dispatch_method
    for path, method in chosen.items():
        if method is not None and method not in DISPATCH_METHODS:
            hint = nearest(method, DISPATCH_METHODS)
            mend = f"Use one of {', '.join(DISPATCH_METHODS)}"
            mend = f'Did you mean "{hint}"? {mend}' if hint else mend
            yield _error(settings, path, f'there is no dispatch method "{method}"', mend)


def _any_fastchat_worker(settings: Settings) -> Iterator[Problem]:
    for index, pattern in enumerate(settings.controller.fastchat_workers):
        if not pattern.removeprefix("http://").removeprefix("https://").strip("*"):
            path = ("FSCHAT_CONTROLLER", "fastchat_workers", index)
            message = f'"{pattern}" lets any address register as a worker without the secret'
            mend = 'Name the addresses, such as "http://127.0.0.1:2100*"'
            yield Problem("warning", settings.origin.source_of(path), spell(path), message, mend)


def _store_urls(settings: Settings) -> Iterator[Problem]:
    """URLs of a kind that nobody here speaks. What they say is not told: it may be a password."""
    stores = (
        ("DATABASE_URL", settings.database_url, _DATABASES),
        ("REDIS_URL", settings.redis_url, _REDIS),
    )
    for key, secret, schemes in stores:
        url = secret.get_secret_value() if secret else ""
        scheme, mark, _ = url.partition("://")
        if url and (not mark or scheme.partition("+")[0] not in schemes):
            mend = f"Write {' or '.join(f'{name}://...' for name in schemes)}"
            yield _error(settings, (key,), "it is no URL of a kind that can be used", mend)


@dataclass(frozen=True)
class _Bound:
    """A server's port as the configuration fixes it."""

    port: int
    host: str
    path: KeyPath
    starts: bool


def _equal_ports(settings: Settings) -> Iterator[Problem]:
    """Two servers with one port: an error when both start, a warning when one may start later."""
    for first, second in combinations(_bound_ports(settings), 2):
        if first.port == second.port and _overlap(first.host, second.host):
            yield Problem(
                "error" if first.starts and second.starts else "warning",
                settings.origin.source_of(second.path),
                spell(second.path),
                f"port {second.port} is also that of {spell(first.path)}",
                "Give one of them another port, or leave a model's port out to get a free one",
            )


def _bound_ports(settings: Settings) -> Iterator[_Bound]:
    controller, gateway = settings.controller, settings.gateway
    yield _Bound(controller.port, controller.host, ("FSCHAT_CONTROLLER", "port"), True)
    yield _Bound(gateway.port, gateway.host, ("FSCHAT_OPENAI_API", "port"), True)
    starting = {name for name in wanted_models(settings) if kind_of(settings, name)}
    for name, port in explicit_ports(settings).items():
        path, host = _port_key(settings, name), settings.worker(name).host
        yield _Bound(port, host, path, name in starting)


def _port_key(settings: Settings, name: str) -> KeyPath:
    entry = settings.workers.get(name)
    in_workers = entry is not None and "port" in entry.model_fields_set
    return ("FSCHAT_MODEL_WORKERS" if in_workers else "ONLINE_LLM_MODEL", name, "port")


def _overlap(host: str, other: str) -> bool:
    """Tell whether one port number cannot be bound on both hosts; different addresses can."""
    everywhere = {"", "0.0.0.0", "::"}
    return host == other or bool({host, other} & everywhere)


def _error(settings: Settings, path: KeyPath, message: str, mend: str) -> Problem:
    return Problem("error", settings.origin.source_of(path), spell(path), message, mend)


_SERVER_CHECKS: tuple[Callable[[Settings], Iterator[Problem]], ...] = (
    _open_gateway,
    _open_controller,
    _unknown_dispatch,
    _any_fastchat_worker,
    _store_urls,
    _equal_ports,
)
