"""What the text between two tags is as JSON, by the schema of the tool's parameters."""

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

from dev_opsgpt.engines.text_formats.json_span import JsonSpan

_ALL = frozenset(("string", "number", "boolean", "null", "object", "array"))
_WORDS = {"True": "true", "False": "false", "None": "null"}
"""As Python writes them, which models do that were shown their own calls so."""
_DEEPEST = 20


class ValueEnd:
    """Finds the tag that closes a value which is no mere text: the first one, but in a JSON object
    or list, in whose texts the tag may stand."""

    def __init__(self, close: str) -> None:
        self._close = close
        self._span = JsonSpan()
        self._read = 0
        self._over: int | None = None

    def find(self, text: str, last: bool) -> int:
        """Where the tag is in the text, which may only grow; -1 while there is none, or more must
        be seen."""
        first = text.find(self._close)
        if first < 0 or not text.lstrip().startswith(("{", "[")):
            return first
        if self._over is None:
            self._over = self._span.end(text, self._read)
            self._read = len(text)
        place = -1 if self._over is None else text.find(self._close, self._over)
        if place < 0:
            return first if last else -1
        return place if _read(text[:place]) is not None else first


def only_text(parameters: Mapping[str, Any], key: str) -> bool:
    """Whether a value of this parameter can only be a text."""
    return kinds_of(parameters, key) == {"string"}


def json_of(parameters: Mapping[str, Any], key: str, text: str) -> str:
    """The JSON of a value: what the text says, if a value of this parameter may be that, else the
    text itself."""
    bare = text.strip()
    bare = _WORDS.get(bare, bare)
    found = _read(bare)
    if found is None and bare.startswith(("{", "[")):
        bare = _from_python(bare)
        found = _read(bare)
    if found is None or found == "string" or found not in kinds_of(parameters, key):
        return json.dumps(text, ensure_ascii=False)
    return bare


def _from_python(text: str) -> str:
    """The JSON of an object or list as Python writes it; other text as it is."""
    try:
        return json.dumps(ast.literal_eval(text), ensure_ascii=False)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text


def _read(text: str) -> str | None:
    """The type of the JSON that a text is; None for other text."""
    try:
        return _kind(json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None


def kinds_of(parameters: Mapping[str, Any], key: str) -> frozenset[str]:
    """The JSON types that a value of this parameter may have, an integer's being that of a number:
    all, where nothing is known."""
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
