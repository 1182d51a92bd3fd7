"""The checks on the names in FSCHAT_OPENAI_API: those of models in its routes and their fallbacks,
and keys that stand in two lists; `check.py` runs them.

A worker that is configured elsewhere may bring a name that is unknown here. Where none can
register, a fallback to such a name could never answer, and nobody would notice before it is needed.
"""

from collections.abc import Callable, Iterator
from hashlib import sha256

from pydantic import SecretStr

from dev_opsgpt.config.paths import is_loopback
from dev_opsgpt.config.plan import declared_models, kind_of, loadable_models, wanted_models
from dev_opsgpt.config.problems import KeyPath, Problem, Severity, nearest, spell
from dev_opsgpt.config.settings import Settings

_TYPO_CUTOFF = 0.8


def _fallbacks(settings: Settings) -> Iterator[Problem]:
    """Names that are asked when nobody can serve a model, and that cannot answer either."""
    for model, route in settings.gateway.routes.items():
        for index, name in enumerate(route.fallbacks):
            path = ("FSCHAT_OPENAI_API", "routes", model, "fallbacks", index)
            if name == model or name in route.fallbacks[:index]:
                message = f'"{name}" is asked already when this fallback is reached'
                yield _problem(settings, "warning", path, message, "Remove it")
            elif name not in _served_names(settings):
                yield _unserved(settings, path, name)


def _unserved(settings: Settings, path: KeyPath, name: str) -> Problem:
    """What is wrong with a fallback that nothing of this configuration serves."""
    mend = "Start it (LLM_MODELs), or have requests load it (`load_on_demand`)"
    if any(name in _names_of(settings, model) for model in declared_models(settings)):
        message = f'"{name}" is neither started nor loaded by a request'
        return _problem(settings, "warning", path, message, mend)
    if name in declared_models(settings):
        others = ", ".join(f'"{other}"' for other in _names_of(settings, name))
        message = f'nobody serves the name "{name}": that model is served as {others}'
        return _problem(settings, _severity(settings), path, message, "Write one of these")
    route = settings.gateway.routes.get(name)
    if route is not None and route.fallbacks:
        message = f'"{name}" stands for other models, and these are not asked through a fallback'
        return _problem(settings, _severity(settings), path, message, "Name them here")
    hint = nearest(name, _served_names(settings))
    mend = "Declare the model, or remove the name"
    mend = f'Did you mean "{hint}"? {mend}' if hint else mend
    message = f'"{name}" names a model that is declared nowhere'
    if _outsiders(settings):
        message += "; it answers only if a worker from elsewhere serves it"
    return _problem(settings, _severity(settings), path, message, mend)


def _routes(settings: Settings) -> Iterator[Problem]:
    """Routes of models that are declared nowhere. One with fallbacks needs no model of its own."""
    known = {*_served_names(settings), *declared_models(settings)}
    for model, route in settings.gateway.routes.items():
        if model == "default" or model in known or route.fallbacks:
            continue
        hint = nearest(model, known, _TYPO_CUTOFF)
        if _outsiders(settings) and hint is None:
            continue
        mend = "Remove it, or declare the model"
        mend = f'Did you mean "{hint}"? {mend}' if hint else mend
        message = "no model is declared by this name"
        path = ("FSCHAT_OPENAI_API", "routes", model)
        yield _problem(settings, "warning", path, message, mend)


def _client_is_admin(settings: Settings) -> Iterator[Problem]:
    """Keys that clients use, and that open the admin API as well."""
    admins = {_hashed(key) for key in settings.gateway.admin_keys}
    for index, key in enumerate(settings.gateway.api_keys):
        if _hashed(key) in admins:
            message = "this client's key is an admin key too: it can make and revoke keys"
            path = ("FSCHAT_OPENAI_API", "api_keys", index)
            yield _problem(settings, "warning", path, message, "Give admins keys of their own")


def _served_names(settings: Settings) -> list[str]:
    """The names under which clients find a model of this configuration, at once or when a request
    loads it."""
    models = [name for name in wanted_models(settings) if kind_of(settings, name)]
    models += loadable_models(settings)
    return [name for model in models for name in _names_of(settings, model)]


def _names_of(settings: Settings, model: str) -> list[str]:
    return settings.worker(model).model_names or [model]


def _outsiders(settings: Settings) -> bool:
    """Whether workers can register that another configuration has started."""
    controller = settings.controller
    own = settings.gateway.controller_address is None and is_loopback(controller.host)
    return not own or bool(controller.fastchat_workers)


def _severity(settings: Settings) -> Severity:
    return "warning" if _outsiders(settings) else "error"


def _hashed(key: SecretStr) -> str:
    text = key.get_secret_value()
    return text if text.startswith("sha256:") else "sha256:" + sha256(text.encode()).hexdigest()


def _problem(
    settings: Settings, severity: Severity, path: KeyPath, message: str, mend: str
) -> Problem:
    return Problem(severity, settings.origin.source_of(path), spell(path), message, mend)


ROUTE_CHECKS: tuple[Callable[[Settings], Iterator[Problem]], ...] = (
    _fallbacks,
    _routes,
    _client_is_admin,
)
"""Each gives the problems it sees in the settings; none raises."""
