"""Bytes of a request body -> a validated request, or one clear error that names the field."""

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dev_opsgpt.protocol.errors import InvalidRequest, OutOfRange

Model = TypeVar("Model", bound=BaseModel)

_RANGE = {"less_than", "less_than_equal", "greater_than", "greater_than_equal"}
_SHOWN = 80
_SUBJECT = re.compile(r"^(Input|List|String|Value|Dictionary) (?=should)")
_WORDS = {
    "missing": "is missing",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "finite_number": "must be a finite number",
    "union_tag_not_found": "needs a 'type'",
}


def parse(model: type[Model], body: bytes) -> Model:
    """The body as ``model``.

    Raises ``InvalidRequest`` (``OutOfRange`` for a number outside its range) with ``param`` the
    dotted path of the first field that is wrong, such as ``messages.0.role``.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _explain(error, body) from None


def _explain(error: ValidationError, body: bytes) -> InvalidRequest:
    details = error.errors(include_url=False)
    first = details[0]
    if first["type"] == "json_invalid":
        if not body.strip():
            return InvalidRequest("The request body is empty.", code="invalid_json")
        reason = first["msg"].removeprefix("Invalid JSON: ")
        return InvalidRequest(f"The request body is not valid JSON: {reason}", code="invalid_json")
    data = json.loads(body)
    found = [(_path(detail, data), detail) for detail in details]
    # Of a union's alternatives, the one that got furthest into the value says most.
    param, first = max(found, key=lambda pair: len(pair[0]))
    name = ".".join(str(step) for step in param)
    same = [detail for steps, detail in found if steps == param]
    kind = OutOfRange if first["type"] in _RANGE else InvalidRequest
    return kind(_sentence(name, same), param=name or None)


def _path(detail: ErrorDetails, data: Any) -> tuple[int | str, ...]:
    """The steps that lead through ``data`` to the field; pydantic's names of alternatives in a
    union fall out."""
    steps: list[int | str] = []
    for step in detail["loc"]:
        here = isinstance(data, dict) and step in data
        if here or (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            data = data[step]
            steps.append(step)
    if detail["type"] == "missing":
        steps.append(detail["loc"][-1])
    if field := detail.get("ctx", {}).get("field"):
        steps.append(field)
    return tuple(steps)


def _sentence(name: str, details: list[ErrorDetails]) -> str:
    problems = list(dict.fromkeys(_problem(detail) for detail in details))
    where = f"'{name}' " if name else "The body "
    return f"{where}{' or '.join(problems)}{_shown(details[0])}"


def _problem(detail: ErrorDetails) -> str:
    known = _WORDS.get(detail["type"])
    if known is not None:
        return known
    if detail["type"] == "union_tag_invalid":
        return "is of type '{tag}', which is none of {expected_tags}".format(**detail["ctx"])
    return _SUBJECT.sub("", detail["msg"]).replace(" after validation", "")


def _shown(detail: ErrorDetails) -> str:
    value = detail["input"]
    if detail["type"] in ("missing", "conflict") or isinstance(value, dict | list):
        return ""
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, bytes) else "bytes"
    return f" (got {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'})"
