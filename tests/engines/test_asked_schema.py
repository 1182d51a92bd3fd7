"""Schemas that need themselves inside of themselves, told from those that only may have them."""

from typing import Any

import pytest

from dev_opsgpt.engines.asked_schema import answer_schema, has_end, require_end
from dev_opsgpt.engines.forced_tools import parameters_of
from dev_opsgpt.engines.llama_cpp import LlamaCppEngine
from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.protocol.openai import Tool

from .answers import ask, chat

ROOT = {"$ref": "#"}
ENDLESS = {"type": "object", "properties": {"next": ROOT}, "required": ["next"]}


def item(**more: Any) -> dict[str, Any]:
    return {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}, **more}}}


@pytest.mark.parametrize(
    "schema",
    [
        ENDLESS,
        ROOT,
        {**ENDLESS, "type": ["object"]},
        {"anyOf": [ENDLESS, {"$ref": "#/anyOf/0"}]},
        {"allOf": [{"type": "object"}, ROOT]},
        {**item(minItems=1), "$ref": "#/$defs/n"},
        {"type": "array", "prefixItems": [{"type": "null"}, ROOT], "minItems": 2},
        {"$defs": {"a/b": {"$ref": "#/$defs/c"}, "c": {"$ref": "#/$defs/a~1b"}},
         "$ref": "#/$defs/c"},
    ],
)  # fmt: skip
def test_without_end(schema: dict[str, Any]) -> None:
    assert not has_end(schema)
    with pytest.raises(InvalidRequest) as error:
        require_end(schema, "here")
    assert error.value.param == "here"


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {**ENDLESS, "required": []},
        {**ENDLESS, "type": ["object", "null"]},
        {"properties": {"next": ROOT}, "required": ["next"]},
        {"type": "object", "required": ["next"], "properties": {"next": {"anyOf": [ROOT, {}]}}},
        {**item(), "$ref": "#/$defs/n"},
        {"type": "array", "prefixItems": [{"type": "null"}, ROOT], "minItems": 1},
        {"enum": [{"$ref": "#"}]},
        # For others to complain of.
        {"$ref": "#/$defs/none"},
        {"$ref": "#anchor"},
        {"$ref": "http://127.0.0.1/x"},
        {"type": "object", "required": 5, "properties": [], "allOf": {}},
    ],
)
def test_with_an_end(schema: dict[str, Any]) -> None:
    assert has_end(schema)


def test_the_field_is_named() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": ENDLESS}}
    with pytest.raises(InvalidRequest) as error:
        answer_schema(chat(response_format=form))
    assert error.value.param == "response_format"
    tool = {"type": "function", "function": {"name": "t", "parameters": ENDLESS}}
    with pytest.raises(InvalidRequest) as error:
        parameters_of(Tool.model_validate(tool), "tools.3")
    assert error.value.param == "tools.3.function.parameters"


async def test_llama_cpp_refuses_it(engine: LlamaCppEngine) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": ENDLESS}}
    with pytest.raises(InvalidRequest, match="without end"):
        await ask(engine, response_format=form)


def test_a_schema_that_takes_too_long_is_let_pass() -> None:
    """A chain of references is found out link by link; nobody may block others by a long one."""

    def chain(length: int) -> dict[str, Any]:
        links = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}]} for n in range(length)}
        return {"$defs": {**links, str(length): {}}, "allOf": [{"$ref": "#/$defs/0"}, ROOT]}

    assert not has_end(chain(30))
    assert has_end(chain(3000))
