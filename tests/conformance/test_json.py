"""Answers in JSON: any object, or one of a schema."""

import json
from typing import Annotated, Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.conformance.ask import both, plain
from tests.conformance.target import Can, Target
from tests.conformance.test_tools import TOOLS, check


@pytest.fixture(autouse=True)
def _needed(target: Target) -> None:
    target.need(Can.JSON)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Item(Strict):
    kind: Literal["cpu", "gpu", "内存", "🚀"]
    count: Annotated[int, Field(ge=0, le=99)]


class Machine(Strict):
    name: Annotated[str, Field(max_length=8)]
    ready: bool
    items: Annotated[list[Item], Field(min_length=1, max_length=2)]
    owner: Item | None


def form(schema: dict[str, Any]) -> dict[str, Any]:
    """A response format of a schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.parametrize("seed", range(3))
async def test_any_object(client: openai.AsyncOpenAI, target: Target, seed: int) -> None:
    fields = {"response_format": {"type": "json_object"}, "max_tokens": 300}
    answer = await both(client, target, "A machine as JSON", seed=seed, temperature=1, **fields)
    if answer.finish == "stop":
        assert isinstance(json.loads(answer.text), dict)
    else:
        assert answer.text.lstrip().startswith("{")


@pytest.mark.parametrize("seed", range(3))
async def test_a_schema_is_followed(client: openai.AsyncOpenAI, target: Target, seed: int) -> None:
    given = form(Machine.model_json_schema())
    fields = {"seed": seed, "temperature": 1.5, "max_tokens": 400, "response_format": given}
    answer = await both(client, target, "A machine", **fields)
    assert answer.finish == "stop"
    Machine.model_validate_json(answer.text)


async def test_the_client_s_own_parser(client: openai.AsyncOpenAI, target: Target) -> None:
    answer = await client.chat.completions.parse(
        model=target.model,
        messages=[{"role": "user", "content": "A machine"}],
        response_format=Machine,
        max_tokens=400,
    )
    assert isinstance(answer.choices[0].message.parsed, Machine)


@pytest.mark.parametrize("value", ["naïve 你好", "😀🎉👩‍💻", 'a "quoted" \\ line\nbreak'])
async def test_a_constant_comes_out_whole(
    client: openai.AsyncOpenAI, target: Target, value: str
) -> None:
    answer = await both(client, target, "Go", response_format=form({"const": value}))
    assert json.loads(answer.text) == value


async def test_a_limit_cuts_it(client: openai.AsyncOpenAI, target: Target) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 30, "maxItems": 30}
    answer = await both(client, target, "Count", response_format=form(schema), max_tokens=5)
    assert (answer.finish, answer.tokens) == ("length", 5)
    assert answer.text.lstrip().startswith("[")


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/$defs/nowhere"}])
async def test_a_schema_that_cannot_be_followed(
    client: openai.AsyncOpenAI, target: Target, schema: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await plain(client, target, response_format=form(schema), max_tokens=5)
    assert (error.value.param or "").startswith("response_format")


@pytest.mark.parametrize("seed", range(3))
async def test_json_or_a_call(client: openai.AsyncOpenAI, target: Target, seed: int) -> None:
    target.need(Can.TOOLS)
    given = form({"enum": ["yes", "no"]})
    question = ("Say yes.", "What is the weather in Paris?", "Switch it on!")[seed]
    answer = await both(
        client, target, question, tools=TOOLS, response_format=given, seed=seed, max_tokens=300
    )
    if answer.finish == "tool_calls":
        assert answer.text == ""
        for _, name, arguments in answer.calls:
            check(name, arguments)
    else:
        assert answer.finish == "stop"
        assert json.loads(answer.text) in ("yes", "no")
        assert answer.calls == []
