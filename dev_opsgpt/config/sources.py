"""All sources of configuration as layers: two Python files, a JSON file, the environment."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dev_opsgpt.config import environment
from dev_opsgpt.config.explain import unknown_key
from dev_opsgpt.config.legacy import TOP_LEVEL_KEYS
from dev_opsgpt.config.origin import Layer, Origin
from dev_opsgpt.config.problems import ConfigError, Problem, nearest
from dev_opsgpt.config.python_files import read_python
from dev_opsgpt.config.schema import fields_of

OVERLAY_FILE = "local_config.json"
# How alike to a key a helper variable of a Python file must be to count as that key misspelt.
_TYPO_CUTOFF = 0.85


def read_layers(
    folder: Path, environ: Mapping[str, str], schema: Any
) -> tuple[tuple[Layer, ...], list[Problem]]:
    """Give the layers, lowest first, and a problem for each top-level key that does not exist.

    `schema` is the settings model. Raises ConfigError when the folder or a file cannot be read.
    """
    if not folder.is_dir():
        mend = "Point OPSGPT_CONFIG_DIR at the folder that holds model_config.py"
        raise ConfigError([Problem("error", str(folder), "the folder", "there is none", mend)])
    python_layers, overlay = _read_files(folder, environment.top_level(environ, schema))
    problems: list[Problem] = []
    files = [_sift(layer, schema, True, problems) for layer in python_layers]
    if overlay is not None:
        files.append(_sift(overlay, schema, False, problems))
    gguf_defaults = environment.gguf_defaults(environ)
    if gguf_defaults is not None:
        files.insert(0, gguf_defaults)
    variables = environment.layers(environ, schema, Origin(tuple(files)).merged())
    files.extend(_sift(layer, schema, False, problems) for layer in variables)
    return tuple(files), problems


def _read_files(folder: Path, overrides: Mapping[str, Any]) -> tuple[list[Layer], Layer | None]:
    """Read all files; ConfigError tells of each that failed."""
    failures: list[Problem] = []
    overlay, python_layers = None, []
    try:
        overlay = read_overlay(folder)
    except ConfigError as error:
        failures.extend(error.problems)
    values = {} if overlay is None else _whole_keys(overlay.values)
    try:
        python_layers = read_python(folder, {**values, **overrides})
    except ConfigError as error:
        failures.extend(error.problems)
    if failures:
        raise ConfigError(failures)
    return python_layers, overlay


def read_overlay(folder: Path) -> Layer | None:
    """Read local_config.json, where there is one; ConfigError when it is no JSON object."""
    path = folder / OVERLAY_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _unreadable(path, where, f"not JSON: {error.msg}", "Mend the JSON there") from None
    except OSError as error:
        message = f"it cannot be read: {error.strerror or error}"
        mend = "Let the user that runs the service read it"
        raise _unreadable(path, "the whole file", message, mend) from None
    except (ValueError, RecursionError) as error:
        raise _unreadable(
            path, "the whole file", f"{type(error).__name__}: {error}", "Make it a JSON object"
        ) from None
    if not isinstance(values, dict):
        raise _unreadable(
            path, "the whole file", f"found {type(values).__name__}", "Make it a JSON object: {...}"
        )
    return Layer(str(path), values)


def _whole_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not isinstance(value, dict)}


def _sift(layer: Layer, schema: Any, is_python: bool, problems: list[Problem]) -> Layer:
    """Take unknown top-level keys out of a layer, and note those that are no helper variables.

    In a Python file a lower-case name that resembles no key is the user's own variable.
    """
    known = fields_of(schema)
    kept: dict[str, Any] = {}
    for name, value in layer.values.items():
        if name in known or name in TOP_LEVEL_KEYS:
            kept[name] = value
        elif not is_python:
            problems.append(unknown_key((name,), known, layer.label))
        elif name[:2].isupper() or nearest(name, known, _TYPO_CUTOFF):
            hint = nearest(name, known)
            mend = f'Did you mean "{hint}"? A' if hint else "A"
            mend += " variable of your own begins with an underscore"
            message = "there is no such key"
            problems.append(Problem("error", layer.label, name, message, mend))
    return Layer(layer.label, kept)


def _unreadable(path: Path, where: str, message: str, mend: str) -> ConfigError:
    return ConfigError([Problem("error", str(path), where, message, mend)])
