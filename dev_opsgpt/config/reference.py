"""The reference page, made from the models' metadata.

`python -m dev_opsgpt.config.reference` writes docs/configuration.md.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dev_opsgpt.config.environment import VARIABLES
from dev_opsgpt.config.models import LocalModel, OnlineModel, WorkerOptions, WorkerSettings
from dev_opsgpt.config.paths import PROJECT_ROOT
from dev_opsgpt.config.schema import as_model, bare, fields_of, is_optional, is_text
from dev_opsgpt.config.secrets import masked
from dev_opsgpt.config.servers import (
    BreakerSettings,
    ControllerSettings,
    GatewaySettings,
    RouteSettings,
)
from dev_opsgpt.config.settings import Settings

_MODEL = "<name>"
PAGE = PROJECT_ROOT / "docs" / "configuration.md"

_MODEL_FILE_KEYS = (
    "LLM_MODEL",
    "LLM_MODELs",
    "LLM_DEVICE",
    "USE_FASTCHAT",
    "llm_model_dict",
    "VLLM_MODEL_DICT",
    "ONLINE_LLM_MODEL",
)

_INTRODUCTION = """\
# Configuration

This page is made from the code by `python -m dev_opsgpt.config.reference`; change the code, not
the page.

## Where a value comes from

Lowest to highest; dictionaries are merged key by key, anything else is replaced:

1. `configs/model_config.py`: which models are served.
2. `configs/server_config.py`: where the parts listen, how workers run.
3. `configs/local_config.json`: the same keys as JSON, for what is kept out of version control.
4. The environment.

`opsgpt config check` reads everything and names each problem with file, key and mend. An unknown
key is an error; in a Python file, a variable of your own begins with an underscore. The Python
files run with the overriding values of whole keys in place, so what they compute from
`DEFAULT_BIND_HOST`, `LLM_DEVICE` or `LLM_MODEL` follows an override.

## Environment

Parts of an `OPSGPT__` variable find keys and model names without regard to case, and a model name
also with `_` for what a shell does not allow: `OPSGPT__FSCHAT_MODEL_WORKERS__TINY_CHAT__PORT=20100`
finds `"tiny-chat"`. A value is JSON (`[1, 2]`, `true`, `{"a": 1}`) where the key wants other than
text, else the text itself. Inside `default_params`, `engine_args` and for a provider's own keys,
parts are kept as they are written.
"""

_SERVED = """\
## What is started

`LLM_MODEL`, then `LLM_MODELs`, then every entry of `ONLINE_LLM_MODEL` with a provider, then every
entry of `FSCHAT_MODEL_WORKERS` with an `openai_server`; each name once. Where a name is declared in
several places, the first of these serves it: an attached server, vLLM, a local engine, a provider.
A model without a port of its own gets the next free number from
`FSCHAT_MODEL_WORKERS["default"]["port"]` up.

A worker's options come from `FSCHAT_MODEL_WORKERS[name]`, else from `ONLINE_LLM_MODEL[name]`, else
from `FSCHAT_MODEL_WORKERS["default"]`; `default_params`, `engine_args` and `engine_env` are merged
in that order.
"""


def render() -> str:
    """Give the text of docs/configuration.md."""
    top = fields_of(Settings)
    server_keys = [key for key in top if key not in _MODEL_FILE_KEYS]
    options = fields_of(WorkerOptions)
    online = {key: field for key, field in fields_of(OnlineModel).items() if key not in options}
    variables = [[f"`{name}`", meaning] for name, meaning in VARIABLES.items()]
    parts = [
        _INTRODUCTION,
        _rows(["variable", "meaning"], variables),
        "## configs/model_config.py\n",
        _table({key: top[key] for key in _MODEL_FILE_KEYS}, ()),
        f"### llm_model_dict\n\n{_doc(LocalModel)}\n",
        _table(fields_of(LocalModel), ("llm_model_dict", _MODEL)),
        f"### ONLINE_LLM_MODEL\n\n{_doc(OnlineModel)}\n",
        _table(online, ("ONLINE_LLM_MODEL", _MODEL)),
        "## configs/server_config.py\n",
        _table({key: top[key] for key in server_keys}, ()),
        f"### FSCHAT_CONTROLLER\n\n{_doc(ControllerSettings)}\n",
        _table(fields_of(ControllerSettings), ("FSCHAT_CONTROLLER",)),
        f"### FSCHAT_OPENAI_API\n\n{_doc(GatewaySettings)}\n",
        _table(fields_of(GatewaySettings), ("FSCHAT_OPENAI_API",)),
        f"### FSCHAT_OPENAI_API: routes\n\n{_doc(RouteSettings)}\n",
        _table(fields_of(RouteSettings), ("FSCHAT_OPENAI_API", "routes", _MODEL)),
        f"### FSCHAT_OPENAI_API: breaker\n\n{_doc(BreakerSettings)}\n",
        _table(fields_of(BreakerSettings), ("FSCHAT_OPENAI_API", "breaker")),
        f"### FSCHAT_MODEL_WORKERS\n\n{_doc(WorkerSettings)}\n",
        _table(fields_of(WorkerSettings), ("FSCHAT_MODEL_WORKERS", _MODEL)),
        _SERVED,
    ]
    return "\n".join(parts)


def main() -> None:
    """Write the reference page."""
    PAGE.write_text(render(), encoding="utf-8")


def _doc(model: type[BaseModel]) -> str:
    return "\n".join(line.strip() for line in (model.__doc__ or "").strip().splitlines())


def _table(fields: Mapping[str, FieldInfo], path: tuple[str, ...]) -> str:
    rows = [_field_row((*path, key), field) for key, field in fields.items()]
    return _rows(["key", "type", "default", "meaning", "variable"], rows)


def _rows(head: list[str], rows: Iterable[list[str]]) -> str:
    table = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in table)


def _field_row(path: tuple[str, ...], field: FieldInfo) -> list[str]:
    parts = [part if part == _MODEL else part.upper() for part in path]
    meaning = " ".join((field.description or "").split()).replace("|", "\\|")
    kind = _type_name(field.annotation)
    return [f"`{path[-1]}`", kind, _default(field), meaning, f"`OPSGPT__{'__'.join(parts)}`"]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if as_model(field.annotation) is not None:
        return ""
    value = masked(field.get_default(call_default_factory=True, validated_data={}))
    return "none" if value is None else f"`{json.dumps(value)}`"


def _type_name(annotation: Any) -> str:
    name = "".join(_words(annotation))
    return f"{name}, may be None" if is_optional(annotation) else name


def _words(annotation: Any) -> Iterator[str]:
    inner = bare(annotation)
    arguments = get_args(inner)
    if get_origin(inner) is Literal:
        yield " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    elif get_origin(inner) in (list, tuple):
        yield f"list of {_type_name(arguments[0])}"
    elif get_origin(inner) is dict or as_model(inner) is not None:
        yield "dictionary"
    elif is_text(inner):
        yield "string" if inner is str else "string, secret"
    else:
        yield {bool: "True or False", int: "whole number", float: "number"}[inner]


if __name__ == "__main__":
    main()
