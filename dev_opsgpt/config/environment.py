"""The environment as layers of configuration.

`OPSGPT__<KEY>[__<SUBKEY>...]=value` sets any key: names are found without regard to case, model
names also with `_` for what a shell does not allow (`TINY_CHAT` finds "tiny-chat"). A value is JSON
where the key wants other than text, else the text itself. Inside free dictionaries (`engine_args`)
parts are kept as they are written.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from dev_opsgpt.config.origin import Layer
from dev_opsgpt.config.problems import Problem, nearest
from dev_opsgpt.config.schema import fields_of, is_optional, is_text, step

PREFIX = "OPSGPT__"
_OWN = "OPSGPT_"
VARIABLES: Mapping[str, str] = {
    "OPSGPT_CONFIG_DIR": "Folder of the configuration files, where it is not `configs/`.",
    "OPSGPT_SECRET": "`CLUSTER_SECRET`.",
    "OPSGPT_API_KEYS": '`FSCHAT_OPENAI_API["api_keys"]`, separated by commas.',
    "OPSGPT_ADMIN_KEYS": '`FSCHAT_OPENAI_API["admin_keys"]`, separated by commas.',
    "OPSGPT_DATABASE_URL": "`DATABASE_URL`.",
    "OPSGPT_REDIS_URL": "`REDIS_URL`.",
    "LLM_BASE_URL": '`FSCHAT_OPENAI_API["llm_base_url"]`.',
    "MODEL_PATH": (
        "A GGUF model that is added, started with llama.cpp and made `LLM_MODEL`; looked for as"
        " `local_model_path` is. Unless the files say otherwise of it: `n_ctx` 8192,"
        " `n_gpu_layers` -1, temperature 0.7, max_tokens 2048."
    ),
    "MODEL_NAME": "Name of that model for clients; `default-model` where left out.",
    "MODEL_TYPE": "`LLM` (text), or `VL` (vision), which needs `MMPROJ_PATH`.",
    "MMPROJ_PATH": "The projector file of a `VL` model.",
    "OPSGPT__<KEY>[__<SUBKEY>...]": "Any key below.",
}
"""Every variable that is read, and what it means."""
_SHORT_NAMES: Mapping[str, tuple[str, ...]] = {
    "LLM_BASE_URL": ("FSCHAT_OPENAI_API", "llm_base_url"),
    "OPSGPT_API_KEYS": ("FSCHAT_OPENAI_API", "api_keys"),
    "OPSGPT_ADMIN_KEYS": ("FSCHAT_OPENAI_API", "admin_keys"),
    "OPSGPT_SECRET": ("CLUSTER_SECRET",),
    "OPSGPT_DATABASE_URL": ("DATABASE_URL",),
    "OPSGPT_REDIS_URL": ("REDIS_URL",),
}
# What only the opsgpt command reads.
_COMMANDS = ("OPSGPT_ADMIN_KEY",)
_TYPO_CUTOFF = 0.75
_LISTS = frozenset({"OPSGPT_API_KEYS", "OPSGPT_ADMIN_KEYS"})
_MODEL_TABLES = ("llm_model_dict", "VLLM_MODEL_DICT", "ONLINE_LLM_MODEL", "FSCHAT_MODEL_WORKERS")
_TABLE_PATHS = [[table] for table in _MODEL_TABLES]
_GGUF_CONTEXT = 8192
_GGUF_PARAMS: Mapping[str, Any] = {"temperature": 0.7, "max_tokens": 2048}


def top_level(environ: Mapping[str, str], schema: Any) -> dict[str, Any]:
    """Give what the environment sets for whole top-level keys, which needs no other layer."""
    values: dict[str, Any] = {}
    for layer in layers(environ, schema, {}):
        values |= {key: value for key, value in layer.values.items() if not isinstance(value, dict)}
    return values


def layers(environ: Mapping[str, str], schema: Any, base: Mapping[str, Any]) -> list[Layer]:
    """Give one layer for each variable that sets something, lowest first.

    `schema` is the settings model; `base` the files' values, whose model names are matched.
    """
    tables = (base.get(key) for key in _MODEL_TABLES)
    models = [name for table in tables if isinstance(table, Mapping) for name in table]
    found = _gguf_layers(environ)
    names = [name for name in environ if name.upper().startswith(PREFIX)]
    for name in sorted(names, key=lambda name: (name.count("__"), name)):
        found.append(_generic_layer(name, environ[name], schema, models))
    for name, path in _SHORT_NAMES.items():
        if environ.get(name):
            value = _comma_separated(environ[name]) if name in _LISTS else environ[name]
            found.append(Layer(_label(name), _nest(path, value)))
    return found


def unknown(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Warn of each OPSGPT_ variable that nobody reads, such as OPSGPT_API_KEY."""
    known = {name.removeprefix(_OWN) for name in (*VARIABLES, *_COMMANDS) if name.startswith(_OWN)}
    for name in sorted(environ):
        rest = name.removeprefix(_OWN)
        if not name.startswith(_OWN) or name.startswith(PREFIX) or rest in known:
            continue
        hint = nearest(rest, known, _TYPO_CUTOFF)
        mend = f"Did you mean {_OWN}{hint}?" if hint else "Any key can be set by OPSGPT__<KEY>"
        message = "there is no such variable; it has no effect"
        yield Problem("warning", "environment", name, message, mend)


def gguf_defaults(environ: Mapping[str, str]) -> Layer | None:
    """Give what a model named by MODEL_PATH starts with where the files say nothing else."""
    if not environ.get("MODEL_PATH"):
        return None
    name = environ.get("MODEL_NAME") or "default-model"
    worker = {"n_ctx": _GGUF_CONTEXT, "n_gpu_layers": -1}
    values = {
        "llm_model_dict": {name: {"default_params": dict(_GGUF_PARAMS)}},
        "FSCHAT_MODEL_WORKERS": {name: worker},
    }
    return Layer(_label("MODEL_PATH"), values)


def _gguf_layers(environ: Mapping[str, str]) -> list[Layer]:
    """Declare the model of MODEL_PATH; the other three variables mean nothing without it."""
    path = environ.get("MODEL_PATH")
    if not path:
        return []
    name = environ.get("MODEL_NAME") or "default-model"
    entries = {"MODEL_PATH": {"local_model_path": path, "engine": "llama_cpp"}}
    if model_type := environ.get("MODEL_TYPE"):
        entries["MODEL_TYPE"] = {"model_type": model_type}
    if projector := environ.get("MMPROJ_PATH"):
        entries["MMPROJ_PATH"] = {"mmproj_path": projector}
    declared = [
        Layer(_label(variable), {"llm_model_dict": {name: entry}})
        for variable, entry in entries.items()
    ]
    variable = "MODEL_NAME" if environ.get("MODEL_NAME") else "MODEL_PATH"
    return [*declared, Layer(_label(variable), {"LLM_MODEL": name, "USE_FASTCHAT": True})]


def _generic_layer(name: str, text: str, schema: Any, models: Collection[str]) -> Layer:
    path: list[str] = []
    kind = schema
    for part in name[len(PREFIX) :].split("__"):
        key = _match(part, models if path in _TABLE_PATHS else fields_of(kind))
        path.append(key)
        kind = step(kind, key)
    return Layer(_label(name), _nest(path, _decode(text, kind)))


def _match(part: str, candidates: Collection[str]) -> str:
    """Find the key that a part of a variable's name means; the part itself when none does."""
    if part in candidates:
        return part
    folded = _fold(part)
    return next((key for key in candidates if _fold(key) == folded), part)


def _fold(name: str) -> str:
    return re.sub(r"\W", "_", name).casefold()


def _decode(text: str, kind: Any) -> Any:
    """Read a value: the text itself where text is wanted, else JSON, else the text after all."""
    if is_text(kind) and not (is_optional(kind) and text == "null"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _comma_separated(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _nest(path: Iterable[str], value: Any) -> dict[str, Any]:
    for key in reversed(list(path)):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def _label(name: str) -> str:
    return f"environment variable {name}"
