"""JSON schemas that answers are asked to follow, and those that no text can end by. Pure."""

from typing import Any

from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.protocol.openai import ChatRequest

# Parts of a schema that are looked at: some milliseconds, which nobody else is answered in.
MOST_STEPS = 20_000


def answer_schema(request: ChatRequest) -> dict[str, Any]:
    """The schema of ``response_format``, any object where it has none. Raises ``InvalidRequest``
    for one that no text can end by."""
    form = request.response_format.json_schema if request.response_format else None
    schema = {"type": "object"} if form is None else form.schema_
    require_end(schema, "response_format")
    return schema


def require_end(schema: dict[str, Any], param: str) -> None:
    """Raises ``InvalidRequest`` at ``param`` for a schema that needs itself inside of itself: a
    model would write on for ever, and llguidance gives up somewhere in the answer."""
    if not has_end(schema):
        raise InvalidRequest(
            f"The JSON schema in '{param}' cannot be followed: it needs itself inside of itself, "
            "without end.",
            param=param,
        )


def has_end(schema: dict[str, Any]) -> bool:
    """Whether a finite text can follow the schema, as far as its references to itself tell; of one
    that takes more than ``MOST_STEPS`` to find out it is taken that there is."""
    targets = {reference: _target(schema, reference) for reference in _references(schema)}
    # Those that lead nowhere are somebody else's to complain of.
    search = _Search({reference for reference, target in targets.items() if target is None})
    try:
        while True:
            left = targets.keys() - search.ending
            found = {reference for reference in left if search.ends(targets[reference])}
            if not found:
                return search.ends(schema)
            search.ending |= found
    except _TooLong:
        return True


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_references, schema))
    if not isinstance(schema, dict):
        return set()
    found = set().union(*map(_references, schema.values()))
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        found.add(reference)
    return found


def _target(schema: Any, reference: str) -> Any:
    """What a JSON pointer leads to, None for nothing."""
    if not reference.startswith("#/"):
        return schema if reference == "#" else None
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, dict):
            schema = schema.get(name)
        elif isinstance(schema, list) and name.isdecimal() and int(name) < len(schema):
            schema = schema[int(name)]
        else:
            return None
    return schema


class _TooLong(Exception):
    """The search has taken all its steps."""


class _Search:
    """Looks for ends, where the references in ``ending`` have one."""

    def __init__(self, ending: set[str]) -> None:
        self.ending = ending
        self._left = MOST_STEPS

    def ends(self, schema: Any) -> bool:
        """Whether a text that follows a schema can end. Raises ``_TooLong``."""
        self._left -= 1
        if self._left < 0:
            raise _TooLong
        if not isinstance(schema, dict):
            return True
        reference = schema.get("$ref")
        if (
            isinstance(reference, str)
            and reference.startswith("#")
            and reference not in self.ending
        ):
            return False
        if not all(map(self.ends, _listed(schema, "allOf"))):
            return False
        for name in ("anyOf", "oneOf"):
            parts = _listed(schema, name)
            if parts and not any(map(self.ends, parts)):
                return False
        kinds = schema.get("type")
        if "enum" in schema or "const" in schema or not kinds:
            return True
        kinds = kinds if isinstance(kinds, list) else [kinds]
        return any(self._kind_ends(kind, schema) for kind in kinds)

    def _kind_ends(self, kind: Any, schema: dict[str, Any]) -> bool:
        if kind == "object":
            known = schema.get("properties")
            known = known if isinstance(known, dict) else {}
            return all(self.ends(known.get(name)) for name in _listed(schema, "required"))
        if kind == "array":
            least = schema.get("minItems")
            least = least if isinstance(least, int) else 0
            first = _listed(schema, "prefixItems")
            more = [schema.get("items")] if least > len(first) else []
            return all(map(self.ends, [*first[:least], *more]))
        return True


def _listed(schema: dict[str, Any], name: str) -> list[Any]:
    found = schema.get(name)
    return found if isinstance(found, list) else []
