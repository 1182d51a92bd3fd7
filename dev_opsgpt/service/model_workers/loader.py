"""From an entry of ``ONLINE_LLM_MODEL`` to an engine that a worker runs."""

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any, Protocol, cast

from dev_opsgpt.service.model_workers.base import ApiModelWorker
from dev_opsgpt.service.model_workers.engine import ProviderEngine
from dev_opsgpt.service.model_workers.masking import Mask, secrets_in
from dev_opsgpt.service.model_workers.openai import OpenAIWorker
from dev_opsgpt.service.model_workers.openai_engine import OpenAIEngine
from dev_opsgpt.service.model_workers.optional import Missing
from dev_opsgpt.worker.engine import EngineError

PACKAGE = "dev_opsgpt.service.model_workers"
DEFAULT_PROVIDER = "OpenAIWorker"


class WorkerValues(Protocol):
    """What is taken of a worker's settings; the configuration's ``WorkerSettings`` has it."""

    @property
    def model_names(self) -> list[str] | None:
        """Names that clients use; the entry's own name where there are none."""
        ...

    @property
    def limit_worker_concurrency(self) -> int:
        """Requests at the same time."""
        ...

    @property
    def no_register(self) -> bool:
        """Whether the worker stays out of the controller's table."""
        ...

    @property
    def n_ctx(self) -> int | None:
        """The model's context in tokens, where it is not what the class says."""
        ...

    @property
    def default_params(self) -> dict[str, Any]:
        """Generation parameters for requests that leave them out."""
        ...


def provider_names() -> list[str]:
    """The providers that are registered and can be used here, in alphabetical order."""
    package = vars(importlib.import_module(PACKAGE))
    return sorted(name for name, found in package.items() if _is_provider(found))


def provider_class(name: str) -> type[ApiModelWorker]:
    """The class that is registered under a name.

    Raises ``EngineError`` that says what there is, or what the class lacks.
    """
    package = importlib.import_module(PACKAGE)
    found = getattr(package, name, None)
    if _is_provider(found):
        return cast(type[ApiModelWorker], found)
    missing: dict[str, Missing] = package.missing
    if name in missing:
        raise EngineError(f"the provider {name} cannot be used: {missing[name].reason}")
    known = provider_names()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    raise EngineError(
        f"no provider {name!r} is registered in service/model_workers/__init__.py; {hint}"
    )


def _is_provider(found: Any) -> bool:
    return (
        inspect.isclass(found) and issubclass(found, ApiModelWorker) and found is not ApiModelWorker
    )


def make_worker(
    name: str,
    entry: Mapping[str, Any],
    worker: WorkerValues,
    *,
    controller_addr: str | None = None,
    worker_addr: str | None = None,
) -> ApiModelWorker:
    """The provider's object for an entry. Raises ``EngineError``.

    Its constructor gets ``model_names``, ``controller_addr`` and ``worker_addr``, and of the
    entry's other keys those that its signature names.
    """
    cls = provider_class(entry.get("provider") or DEFAULT_PROVIDER)
    given: dict[str, Any] = {key: value for key, value in entry.items() if value is not None}
    if worker.n_ctx is not None:
        given["context_len"] = worker.n_ctx
    given |= {
        "model_names": list(worker.model_names or (name,)),
        "controller_addr": controller_addr,
        "worker_addr": worker_addr,
        "no_register": worker.no_register,
    }
    try:
        made = cls(**_named(cls, given))
    except Exception as error:
        text = Mask(secrets_in(entry))(f"{type(error).__name__}: {error}")
        raise EngineError(f"{cls.__name__} for the model {name!r} cannot be made: {text}") from None
    made.config = dict(entry)
    made.timeout = float(entry.get("timeout") or made.timeout)
    return made


def _named(cls: type[ApiModelWorker], given: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments, those that the constructor names, and the base class's own where it
    passes further ones up."""
    parameters = inspect.signature(cls).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    base = set(inspect.signature(ApiModelWorker).parameters) if open_ended else set()
    return {key: value for key, value in given.items() if key in {*parameters, *base}}


def make_engine(
    name: str,
    entry: Mapping[str, Any],
    worker: WorkerValues,
    *,
    controller_addr: str | None = None,
    worker_addr: str | None = None,
) -> ProviderEngine:
    """The engine for the model ``name``: ``entry`` is its entry in ``ONLINE_LLM_MODEL`` with its
    secrets in the clear, ``worker`` the settings in effect for it. Raises ``EngineError``.
    """
    made = make_worker(
        name, entry, worker, controller_addr=controller_addr, worker_addr=worker_addr
    )
    limit, defaults = worker.limit_worker_concurrency, worker.default_params
    if isinstance(made, OpenAIWorker):
        return OpenAIEngine(
            made, name=name, limit=limit, default_params=defaults, context=worker.n_ctx
        )
    return ProviderEngine(made, name=name, limit=limit, default_params=defaults)
