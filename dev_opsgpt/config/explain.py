"""Validation, and its findings in the words of the person who wrote the file."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from dev_opsgpt.config.origin import Origin
from dev_opsgpt.config.problems import KeyPath, Problem, nearest, spell
from dev_opsgpt.config.schema import field_at, fields_of, type_at
from dev_opsgpt.config.secrets import is_secret_name, mask_text

Model = TypeVar("Model", bound=BaseModel)

_SHOWN_LENGTH = 60
# What a value should be, by the beginning of pydantic's error type.
_WANTED: Mapping[str, str] = {
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "string_too_short": "a string that is not empty",
    "list": "a list: [...]",
    "tuple": "a list: [...]",
    "too_short": "a list that is not empty",
    "dict": "a dictionary: {{...}}",
    "model": "a dictionary: {{...}}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
    "value_error": "another value ({error})",
}


def explain(
    model: type[Model], values: Mapping[str, Any], origin: Origin
) -> tuple[Model | None, list[Problem]]:
    """Validate `values`; give the model, or None and every fault as a Problem."""
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        return None, [_describe(model, detail, origin) for detail in error.errors()]


def unknown_key(path: KeyPath, known: Mapping[str, Any], source: str) -> Problem:
    """Say that the last step of `path` is no key, and which known one it may be meant for."""
    hint = nearest(str(path[-1]), known)
    mend = f'Did you mean "{hint}"?' if hint else f"Known keys: {', '.join(sorted(known))}"
    return Problem("error", source, spell(path), "there is no such key", mend)


def show(value: Any, path: KeyPath) -> str:
    """Say what was found, without any secret and at most a line long."""
    if any(is_secret_name(step) for step in path) or isinstance(value, SecretStr):
        return f"a secret (a value of type {type(value).__name__})"
    if isinstance(value, Mapping):
        return "a dictionary"
    if isinstance(value, list | tuple | set):
        return f"a list of {len(value)}"
    text = repr(mask_text(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def _describe(model: type[BaseModel], detail: ErrorDetails, origin: Origin) -> Problem:
    path: KeyPath = detail["loc"]
    if path and path[-1] == "[key]":
        key, source = spell(path[:-1]), origin.source_of(path[:-2])
        return Problem("error", source, key, "a name is not a string", "Put the name in quotes")
    source = origin.source_of(path)
    if detail["type"] == "extra_forbidden":
        return unknown_key(path, fields_of(type_at(model, path[:-1])), source)
    meaning = _meaning(model, path)
    if detail["type"] == "missing":
        mend = f'Add "{path[-1]}": {meaning}'
        return Problem("error", source, spell(path), "this key is missing", mend)
    mend = f"It must be {_wanted(detail)}. {meaning}"
    found = f"found {show(detail['input'], path)}"
    return Problem("error", source, spell(path), found, mend.strip())


def _wanted(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "string_pattern_mismatch":
        return 'a URL that begins with "http://" or "https://"'
    for prefix, words in _WANTED.items():
        if kind.startswith(prefix):
            return words.format(**detail.get("ctx", {}))
    return f"valid: {detail['msg']}"


def _meaning(model: type[BaseModel], path: KeyPath) -> str:
    while path and (isinstance(path[-1], int) or field_at(model, path) is None):
        path = path[:-1]
    field = field_at(model, path)
    return " ".join((field.description or "").split()) if field is not None else ""
