"""What the text between two tags is as JSON, by the schema of the tool's parameters."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_ALL = frozenset(("string", "number", "boolean", "null", "object", "array"))
_WORDS = {"True": "true", "False": "false", "None": "null"}
"""As Python writes them, which models do that were shown their own calls so."""
_DEEPEST = 20


def only_text(parameters: Mapping[str, Any], key: str) -> bool:
    """Whether a value of this parameter can only be a text."""
    return _kinds(parameters, key) == {"string"}


def json_of(parameters: Mapping[str, Any], key: str, text: str) -> str:
    """The JSON of a value: what the text says, if a value of this parameter may be that, else the
    text itself."""
    bare = text.strip()
    bare = _WORDS.get(bare, bare)
    try:
        value = json.loads(bare, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    if isinstance(value, str) or _kind(value) not in _kinds(parameters, key):
        return json.dumps(text, ensure_ascii=False)
    return bare


def _kinds(parameters: Mapping[str, Any], key: str) -> frozenset[str]:
    """The types that a value of this parameter may have: all, where nothing is known."""
    properties = parameters.get("properties")
    schema = properties.get(key) if isinstance(properties, Mapping) else None
    return frozenset(_types(schema, parameters, 0))


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> Iterator[str]:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        yield from _ALL
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield from _types(_referred(reference, root), root, depth + 1)
        return
    given = schema.get("type")
    named = [given] if isinstance(given, str) else given
    if isinstance(named, list):
        yield from ("number" if one == "integer" else str(one) for one in named)
        return
    if isinstance(schema.get("enum"), list):
        yield from map(_kind, schema["enum"])
        return
    if "const" in schema:
        yield _kind(schema["const"])
        return
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            for one in schema[key]:
                yield from _types(one, root, depth + 1)
            return
    yield from _ALL


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    for type_, name in ((str, "string"), (int | float, "number"), (list, "array")):
        if isinstance(value, type_):
            return name
    return "object"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
