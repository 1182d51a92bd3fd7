"""Arguments between tags as a grammar, as far as one can be made of their schema. Pure.

A text is free up to the tag that closes it, any other value is JSON of its schema. That leaves out
what cannot be asked of a free text, a length for example, and values that may be a text or
something else: the tags do not tell which.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from dev_opsgpt.engines.text_formats.form import Tags
from dev_opsgpt.engines.text_formats.tag_values import kinds_of

_NOTES = {"title", "description", "default", "examples"}
_OBJECT = {"type", "properties", "required", "additionalProperties", "$defs", *_NOTES}
_NO_KEY = re.compile(r'[<>"\n]|^$')
_TEXT = {"type", "enum", "const", *_NOTES}


def expressible(parameters: Mapping[str, Any], tags: Tags) -> bool:
    """Whether a grammar can hold arguments to this schema of an object."""
    properties = parameters.get("properties", {})
    if not set(parameters) <= _OBJECT or not isinstance(properties, Mapping):
        return False
    if not set(parameters.get("required", ())) <= set(properties):
        return False
    if not isinstance(parameters.get("$defs", {}), Mapping):
        return False
    return all(_may_stand(parameters, key, tags) for key in properties)


def members(
    parameters: Mapping[str, Any],
    tags: Tags,
    literal: Callable[[str], str],
    options: Mapping[str, Any],
    prefix: str,
) -> list[str]:
    """The rules of the arguments, the first of which is named ``prefix``; the arguments come in the
    order of their schema. For what is ``expressible``."""
    rules, names = [], []
    required = set(parameters.get("required", ()))
    for place, (key, schema) in enumerate(parameters.get("properties", {}).items()):
        name = f"{prefix}_{place}"
        names.append(name if key in required else f"{name}?")
        before, _, after = tags.written.replace("{key}", key).partition("{value}")
        rest = after.partition(tags.close)[2]
        if kinds_of(parameters, key) != {"string"}:
            whole = {**schema, "$defs": parameters.get("$defs", {}), "x-guidance": options}
            rules.append(f"{name}: {literal(before)} %json {json.dumps(whole)} {literal(after)}")
        elif (texts := _choices(schema)) is not None:
            any_text = " | ".join(map(literal, texts))
            rules.append(f"{name}: {literal(before)} ({any_text}) {literal(after)}")
        else:
            end = literal(tags.close)
            lazy = "[lazy]" if end.startswith('"') else ""
            rules.append(f"{name}: {literal(before)} {name}_text {literal(rest) if rest else ''}")
            rules.append(f"{name}_text{lazy}: /(.|\\n)*/ {end}")
    return [f"{prefix}: {' '.join(names)}", *rules]


def _may_stand(parameters: Mapping[str, Any], key: str, tags: Tags) -> bool:
    schema = parameters["properties"][key]
    if not isinstance(schema, Mapping) or key.strip() != key or _NO_KEY.search(key):
        return False
    kinds = kinds_of(parameters, key)
    if kinds == {"string"}:
        choices = _choices(schema)
        fits = choices is None or all(_is_text(one, tags) for one in choices)
        return set(schema) <= _TEXT and fits
    return "string" not in kinds and _refers_to_definitions(schema)


def _is_text(value: Any, tags: Tags) -> bool:
    return isinstance(value, str) and value != "" and tags.close not in value


def _choices(schema: Mapping[str, Any]) -> list[str] | None:
    """The texts that a value may be, where they are listed."""
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return found if isinstance(found, list) else None


def _refers_to_definitions(schema: Any) -> bool:
    """Whether all references in it are to definitions, which go along."""
    if isinstance(schema, list):
        return all(map(_refers_to_definitions, schema))
    if not isinstance(schema, Mapping):
        return True
    if not str(schema.get("$ref", "#/$defs/")).startswith("#/$defs/"):
        return False
    return all(map(_refers_to_definitions, schema.values()))
