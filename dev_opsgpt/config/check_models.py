"""The checks on declared models and their worker options; `check.py` runs them."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from dev_opsgpt.config.check_transformers import transformers_keys
from dev_opsgpt.config.models import LocalModel, OnlineModel
from dev_opsgpt.config.paths import is_hub_name, is_loopback, resolve_model_path
from dev_opsgpt.config.plan import declared_models, kind_of, undeclared, wanted_models
from dev_opsgpt.config.problems import KeyPath, Problem, Severity, nearest, spell
from dev_opsgpt.config.schema import fields_of
from dev_opsgpt.config.settings import OWN_KEYS, Settings

# How alike to a known key a provider's own key must be to count as that key misspelt.
_TYPO_CUTOFF = 0.8


def _undeclared_names(settings: Settings) -> Iterator[Problem]:
    declared = declared_models(settings)
    for path, name in _named(settings).items():
        if name not in declared:
            yield undeclared(settings, name, path)


def _kept_from_starting(settings: Settings) -> Iterator[Problem]:
    """Local models that are named but not started, because USE_FASTCHAT is false."""
    told: set[str] = set()
    for path, name in _named(settings).items():
        if kind_of(settings, name) or name not in declared_models(settings) or name in told:
            continue
        told.add(name)
        message = f'"{name}" is a local model, and USE_FASTCHAT is false, so it is not started'
        if "gpt" in name:
            message += '; a model with "gpt" in its name is taken for an online one'
            mend = 'Rename it without "gpt", or set USE_FASTCHAT = True'
            yield _problem(settings, "error", path, message, mend)
        else:
            mend = "Set USE_FASTCHAT = True, or take the model off the list"
            yield _problem(settings, "warning", path, message, mend)


def _missing_files(settings: Settings) -> Iterator[Problem]:
    """Models whose files are not there. Each fails by itself and leaves the others alone, so a
    start is stopped only where there are no others."""
    wanted = [name for name in wanted_models(settings) if kind_of(settings, name)]
    absent = {name: found for name in wanted if (found := _absent(settings, name))}
    gone = [name for name, (stored, _) in absent.items() if not is_hub_name(stored)]
    for name, (stored, path) in absent.items():
        message = f'"{stored}" is neither under llm_models/ nor a path'
        if name not in gone:
            message += "; it is taken for a Hugging Face hub name"
            mend = "Nothing to do if the engine may download it; else put the model there"
            yield _problem(settings, "warning", path, message, mend)
            continue
        mend = "Put the model there, or write its path (`~` works) or hub name (owner/model)"
        severity: Severity = "warning" if len(gone) < len(wanted) else "error"
        yield _problem(settings, severity, path, message, mend)


def _absent(settings: Settings, name: str) -> tuple[str, KeyPath] | None:
    """What is said of where a model lies, and the key that says it, where nothing lies there."""
    kind = kind_of(settings, name)
    path: KeyPath = ("llm_model_dict", name, "local_model_path")
    if kind == "local":
        stored = settings.local_models[name].local_model_path
    elif kind == "vllm":
        stored, path = settings.vllm_models[name], ("VLLM_MODEL_DICT", name)
    else:
        return None
    return None if isinstance(resolve_model_path(stored), Path) else (stored, path)


def _vision(settings: Settings) -> Iterator[Problem]:
    """Vision models without what they need, and projectors that nothing uses."""
    for name in wanted_models(settings):
        if kind_of(settings, name) != "local":
            continue
        local = settings.local_models[name]
        place: KeyPath = ("llm_model_dict", name)
        projector = local.mmproj_path
        if local.model_type != "VL":
            if projector is not None:
                message = "a projector has no effect without model_type VL"
                mend = 'Set "model_type" (MODEL_TYPE) to "VL", or remove it'
                yield _problem(settings, "warning", (*place, "mmproj_path"), message, mend)
        elif _engine_named(local) != "llama_cpp":
            message = (
                f'"{name}" is a vision model (VL), and only GGUF models are served with vision'
            )
            mend = "Use a .gguf file and its projector, or LLM to serve the text side"
            yield _problem(settings, "error", (*place, "model_type"), message, mend)
        elif projector is None:
            message = f'"{name}" is a vision model (VL) and has no projector'
            mend = (
                'Set "mmproj_path" (MMPROJ_PATH) to its mmproj file, or use LLM to serve text only'
            )
            yield _problem(settings, "error", (*place, "model_type"), message, mend)
        elif not _is_file(projector):
            message = f'"{projector}" is no file, neither under llm_models/ nor as a path'
            mend = "Put the projector there, or write its path (`~` works)"
            yield _problem(settings, "error", (*place, "mmproj_path"), message, mend)


def _engine_named(local: LocalModel) -> str:
    """The engine that an entry asks for, by itself or by the kind of its file."""
    if local.engine != "auto":
        return local.engine
    return "llama_cpp" if local.local_model_path.endswith(".gguf") else "transformers"


def _is_file(stored: str) -> bool:
    found = resolve_model_path(stored)
    return isinstance(found, Path) and found.is_file()


def _twice_declared(settings: Settings) -> Iterator[Problem]:
    for name in settings.online_models:
        kind = kind_of(settings, name)
        if kind not in ("online", None):
            message = f'"{name}" is declared as a model of another kind too; that one is served'
            yield _problem(
                settings, "warning", ("ONLINE_LLM_MODEL", name), message, "Rename one of the two"
            )


def _provider_typos(settings: Settings) -> Iterator[Problem]:
    known = fields_of(OnlineModel)
    for name, entry in settings.online_models.items():
        for key in entry.model_extra or {}:
            if hint := nearest(key, known, _TYPO_CUTOFF):
                path = ("ONLINE_LLM_MODEL", name, key)
                message = "this key is handed to the provider as it is"
                mend = f'If you meant "{hint}", write that'
                yield _problem(settings, "warning", path, message, mend)


def _shut_out_of_our_gateway(settings: Settings) -> Iterator[Problem]:
    """Online models that ask this very gateway, as the default "example" does, without its key."""
    keys = {key.get_secret_value() for key in settings.gateway.api_keys}
    for name, entry in settings.online_models.items():
        url = urlsplit(entry.api_base_url or "")
        ours = is_loopback(url.hostname or "") and url.port == settings.gateway.port
        if not (keys and ours and entry.provider):
            continue
        key = entry.api_key.get_secret_value()
        if key not in keys and "sha256:" + sha256(key.encode()).hexdigest() not in keys:
            path = ("ONLINE_LLM_MODEL", name, "api_key")
            message = "this model asks our own gateway, which does not know this key"
            mend = 'Set it to one of FSCHAT_OPENAI_API["api_keys"], or remove the model'
            yield _problem(settings, "warning", path, message, mend)


def _worker_entries(settings: Settings) -> Iterator[Problem]:
    """Entries of FSCHAT_MODEL_WORKERS that say something without effect."""
    default = settings.workers.get("default")
    for field in sorted(default.model_fields_set & OWN_KEYS - {"port"}) if default else ():
        if getattr(default, field) is not None:
            path: KeyPath = ("FSCHAT_MODEL_WORKERS", "default", field)
            message = "this key belongs to one model and has no effect in the default entry"
            mend = f'Write it as FSCHAT_MODEL_WORKERS["<model>"]["{field}"]'
            yield _problem(settings, "warning", path, message, mend)
    for name, entry in settings.workers.items():
        if entry.cpu_offloading:
            path = ("FSCHAT_MODEL_WORKERS", name, "cpu_offloading")
            mend = 'Use "max_gpu_memory", or "n_gpu_layers" for a .gguf model'
            yield _problem(settings, "warning", path, "this key has no effect here", mend)
    declared = declared_models(settings)
    idle = [name for name in settings.workers if name != "default" and name not in declared]
    if idle:
        path = ("FSCHAT_MODEL_WORKERS", idle[0])
        message = f"no model is declared by the name of these entries: {', '.join(idle)}"
        hints = {name: nearest(name, declared, _TYPO_CUTOFF) for name in idle}
        meant = [f'"{hint}" for "{name}"' for name, hint in hints.items() if hint]
        mend = "Remove them or declare the models"
        mend = f"Did you mean {', '.join(meant)}? {mend}" if meant else mend
        yield _problem(settings, "warning", path, message, mend)


def _more_than_may_be_loaded(settings: Settings) -> Iterator[Problem]:
    """Models that start by themselves, and are more than the bound allows."""
    most = settings.max_loaded_models
    local = [n for n in wanted_models(settings) if kind_of(settings, n) in ("local", "vllm")]
    count = sum(settings.worker(name).replicas for name in local)
    if most is not None and count > most:
        message = f"{count} local models start by themselves, replicas counted"
        mend = "Raise it, or take models off LLM_MODELs: they are loaded when they are asked for"
        yield _problem(settings, "warning", ("MAX_LOADED_MODELS",), message, mend)


def _nothing_to_load(settings: Settings) -> Iterator[Problem]:
    """Models that a request would load, and whose file is not there."""
    wanted = wanted_models(settings)
    for name in settings.loadable_models():
        if name in wanted or kind_of(settings, name) != "local":
            continue
        stored = settings.local_models[name].local_model_path
        if isinstance(resolve_model_path(stored), Path) or is_hub_name(stored):
            continue
        message = f'"{stored}" is neither under llm_models/ nor a path; no request can load it'
        mend = "Put the model there, or write its path (`~` works)"
        path = ("llm_model_dict", name, "local_model_path")
        yield _problem(settings, "warning", path, message, mend)


def _nothing_to_serve(settings: Settings) -> Iterator[Problem]:
    started = any(kind_of(settings, name) for name in wanted_models(settings))
    if not started and not settings.loadable_models():
        folder = settings.origin.config_dir
        message = f"no model is started (configuration read from {folder or 'nowhere'})"
        mend = "Name models in LLM_MODELs; if the folder is not yours, set OPSGPT_CONFIG_DIR"
        yield _problem(settings, "warning", ("LLM_MODELs",), message, mend)


def _named(settings: Settings) -> dict[KeyPath, str]:
    """Give the names in LLM_MODEL and LLM_MODELs by where they stand."""
    named: dict[KeyPath, str] = {("LLM_MODEL",): settings.llm_model} if settings.llm_model else {}
    return named | {("LLM_MODELs", i): name for i, name in enumerate(settings.llm_models)}


def _problem(
    settings: Settings, severity: Severity, path: KeyPath, message: str, mend: str
) -> Problem:
    return Problem(severity, settings.origin.source_of(path), spell(path), message, mend)


MODEL_CHECKS: tuple[Callable[[Settings], Iterator[Problem]], ...] = (
    _undeclared_names,
    _kept_from_starting,
    _missing_files,
    _vision,
    transformers_keys,
    _twice_declared,
    _provider_typos,
    _shut_out_of_our_gateway,
    _worker_entries,
    _more_than_may_be_loaded,
    _nothing_to_load,
    _nothing_to_serve,
)
"""Each gives the problems it sees in the settings; none raises."""
