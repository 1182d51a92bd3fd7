"""Stop strings, UTF-8 and JSON with random weights: fuzzed, for no person can foresee them."""

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from dev_opsgpt.engines.llama_cpp import LlamaCppEngine, LlamaOptions
from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from tests.engines.json_or_calls import PING, json_or_calls

from .answers import ADD, WEATHER, ask, finish
from .random_model import HERMES, write_model

NEVER_END = {"256": -100, "258": -100}
ROOT = Path(__file__).resolve().parents[2]
AB = {str(ord("a")): 40.0, str(ord("b")): 40.0}


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}


@pytest.mark.parametrize("logprobs", [None, 1])
async def test_stop_strings_in_text_of_two_letters(
    engine: LlamaCppEngine, logprobs: int | None
) -> None:
    met = 0
    for seed in range(60):
        dice = random.Random(seed)
        stops = ["".join(dice.choices("ab", k=dice.randint(2, 6))) for _ in range(3)]
        fields = {"seed": seed, "logit_bias": AB, "max_tokens": 25, "logprobs": logprobs}
        whole = (await finish(engine, **fields)).content
        assert set(whole) <= {"a", "b"}
        answer = await finish(engine, stop=stops, **fields)
        ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
        expected = whole
        if ends:
            met += 1
            first = [s for s in stops if whole[: min(ends)].endswith(s)]
            expected = whole[: min(ends) - max(map(len, first))]
        assert answer.content == expected
        assert answer.finish == ("stop" if ends else "length")
        if logprobs:
            assert "".join(entry.token for entry in answer.logprobs) == expected
    assert met > 20


async def test_an_overlapping_stop(engine: LlamaCppEngine) -> None:
    schema = {"enum": ["aaab", "never"]}
    answer = await ask(engine, response_format=_schema(schema), stop="aab", temperature=0)
    assert answer.content in ('"a', '"never"')
    forced = await ask(engine, response_format=_schema({"const": "xaaab!"}), stop=["aab"])
    assert (forced.content, forced.finish) == ('"xa', "stop")
    assert forced.usage is not None
    assert forced.usage.completion_tokens >= 6


async def test_a_beginning_of_a_stop_at_the_end_is_shown(engine: LlamaCppEngine) -> None:
    fields = {"logit_bias": {str(ord("a")): 100}, "max_tokens": 4}
    assert (await finish(engine, stop="aaaab", **fields)).content == "aaaa"
    cut = await finish(engine, stop="aaab", logprobs=1, **fields)
    assert cut.content == "aaaa"
    assert [entry.token for entry in cut.logprobs] == list("aaaa")


@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("stop", [None, ["好好好", "\ufffd!"]])
async def test_characters_are_never_cut(
    engine: LlamaCppEngine, logprobs: bool, stop: list[str] | None
) -> None:
    text = "你好é🙂ñ漢字"
    whole = json.dumps(text, ensure_ascii=False)
    fields: dict[str, Any] = {"response_format": _schema({"const": text}), "stop": stop}
    if logprobs:
        fields["logprobs"] = True
    size = len(whole.encode())
    for limit in range(1, size + 2):
        answer = await ask(engine, max_tokens=limit, **fields)
        assert answer.content == whole.encode()[:limit].decode(errors="ignore")
        assert answer.finish == ("stop" if limit > size else "length")
        for delta in answer.steps:
            assert "\ufffd" not in delta.content
        if logprobs:
            shown = b"".join(bytes(entry.bytes) for entry in answer.logprobs)
            assert shown.decode() == answer.content


async def test_random_text_is_text(engine: LlamaCppEngine) -> None:
    for seed in range(40):
        fields = {"seed": seed, "max_tokens": 60, "logit_bias": NEVER_END}
        plain = await finish(engine, **fields)
        plain.content.encode()  # no lone surrogates
        with_logprobs = await finish(engine, logprobs=0, **fields)
        assert with_logprobs.content == plain.content


async def test_json_object(engine: LlamaCppEngine) -> None:
    # Strings without an end are likely with random weights: make the end likelier.
    bias = {str(ord('"')): 5.0, str(ord("}")): 8.0}
    ended = 0
    for seed in range(40):
        form = {"type": "json_object"}
        answer = await ask(engine, response_format=form, seed=seed, max_tokens=600, logit_bias=bias)
        if answer.finish == "stop":
            ended += 1
            assert isinstance(json.loads(answer.content), dict)
    assert ended > 20


async def test_json_schema(engine: LlamaCppEngine) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 3},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
        },
        "required": ["name", "age", "tags", "next"],
        "additionalProperties": False,
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"ok": {"type": "boolean"}},
                "required": ["ok"],
                "additionalProperties": False,
            }
        },
    }
    for seed in range(60):
        answer = await ask(
            engine, response_format=_schema(schema), seed=seed, max_tokens=400, temperature=1.5
        )
        assert answer.finish == "stop"
        found = json.loads(answer.content)
        assert list(found) == ["name", "age", "tags", "next"]
        assert len(found["name"]) <= 12
        assert 0 <= found["age"] <= 150
        assert len(found["tags"]) <= 3
        assert set(found["tags"]) <= {"x", "y"}
        assert found["next"] is None or isinstance(found["next"]["ok"], bool)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"type": 5},
        {"properties": 5},
        {"$ref": "#/$defs/missing"},
        {"$ref": "http://example.com/x"},
        {"type": "string", "pattern": "^(a"},
        {"type": "array", "items": {"type": "nope"}},
    ],
)
async def test_schemas_that_cannot_be_followed(
    engine: LlamaCppEngine, schema: dict[str, Any]
) -> None:
    for _ in range(2):  # the second time from memory
        with pytest.raises(InvalidRequest) as error:
            await ask(engine, response_format=_schema(schema), max_tokens=5)
        assert error.value.param == "response_format"
    tool = {"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}}
    broken = {
        "type": "function",
        "function": {"name": "b", "parameters": {"type": "object", "properties": {"p": schema}}},
    }
    with pytest.raises(InvalidRequest) as error:
        await ask(engine, tools=[tool, broken], tool_choice="required", max_tokens=5)
    assert error.value.param == "tools.1.function.parameters"


async def test_deep_and_large_schemas(engine: LlamaCppEngine) -> None:
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(80):
        deep = {"type": "array", "items": deep, "minItems": 1, "maxItems": 1}
    answer = await ask(engine, response_format=_schema(deep), max_tokens=400)
    assert answer.content.startswith("[" * 80)
    wide = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(500)}}
    assert (await ask(engine, response_format=_schema(wide), max_tokens=10)).content.startswith("{")


async def test_required_and_named_tools(engine: LlamaCppEngine) -> None:
    names = set()
    for seed in range(25):
        fields: dict[str, Any] = {"seed": seed, "temperature": 2.0, "tools": [WEATHER, ADD]}
        bias = {str(ord("a")): 30.0} if seed % 2 else None  # else it seldom names "add"
        answer = await ask(engine, tool_choice="required", logit_bias=bias, **fields)
        assert (answer.finish, answer.content) == ("tool_calls", "")
        ((name, arguments),) = answer.calls
        names.add(name)
        found = json.loads(arguments)
        if name == "get_weather":
            assert list(found) == ["city"]
        else:
            assert all(isinstance(found[key], int) for key in ("a", "b"))
        choice = {"type": "function", "function": {"name": "add"}}
        named = await ask(engine, tool_choice=choice, stop=["{", "a"], **fields)
        assert named.calls[0][0] == "add"
        assert named.finish == "tool_calls"
        json.loads(named.calls[0][1])
    assert names == {"add", "get_weather"}


async def test_a_tool_without_parameters(engine: LlamaCppEngine) -> None:
    tool = {"type": "function", "function": {"name": "ping"}}
    answer = await ask(engine, tools=[tool], tool_choice="required")
    assert answer.calls == [("ping", "{}")]


async def test_forced_arguments_are_streamed(engine: LlamaCppEngine) -> None:
    answer = await ask(engine, tools=[ADD], tool_choice="required", seed=1, temperature=0)
    pieces = [call.arguments for step in answer.steps for call in step.tool_calls]
    assert len([piece for piece in pieces if piece]) > 3


async def test_forced_calls_cut_at_every_length(engine: LlamaCppEngine) -> None:
    fields: dict[str, Any] = {"tools": [ADD], "tool_choice": "required", "temperature": 0}
    fields["logit_bias"] = {str(ord(end)): 20.0 for end in ",}"}  # short numbers
    whole = (await ask(engine, **fields)).calls[0][1]
    for limit in range(1, 80):
        answer = await ask(engine, max_tokens=limit, **fields)
        arguments = answer.calls[0][1] if answer.calls else ""
        assert whole.startswith(arguments)
        assert answer.finish == ("tool_calls" if arguments == whole else "length")
        if (
            answer.finish == "tool_calls"
            and answer.usage
            and answer.usage.completion_tokens < limit
        ):
            break
    else:
        pytest.fail("the call never came to its end")


async def test_auto_and_none(engine: LlamaCppEngine) -> None:
    for seed in range(100):
        for choice in ("auto", "none"):
            answer = await ask(
                engine, tools=[WEATHER, ADD], tool_choice=choice, seed=seed, max_tokens=80
            )
            assert answer.finish in ("stop", "length")
            assert answer.calls == []


async def test_json_or_calls(engine: LlamaCppEngine) -> None:
    await json_or_calls(engine, {str(ord("<")): 30.0})
    bad = {"type": "function", "function": {"name": "t", "parameters": {"$ref": "#/$defs/no"}}}
    for tools, schema, param in (
        ([PING, bad], {"const": 5}, "tools.1.function.parameters"),
        ([PING], {"type": "nonsense"}, "response_format"),
    ):
        with pytest.raises(InvalidRequest) as error:
            await ask(engine, tools=tools, response_format=_schema(schema))
        assert error.value.param == param
    answer = await ask(
        engine, tools=[ADD], tool_choice="none", response_format=_schema({"const": 5})
    )
    assert answer.content == "5"


@pytest.mark.parametrize(
    ("mark", "template"),
    [
        ("<tool_call>", HERMES),
        ("[TOOL_CALLS]", "{{ tools }}{{ messages[0].content }}{# [TOOL_CALLS] #}"),
    ],
)
async def test_marks_that_are_special_tokens(tmp_path: Path, mark: str, template: str) -> None:
    path = write_model(tmp_path / "marked.gguf", template=template, marks=[mark])
    # In a process of its own, as engines are: llama.cpp's grammars know the tokens of a model by
    # its address in memory, which a model that was there before has had.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.engines.json_or_calls", path, mark), cwd=ROOT
    )
    assert await process.wait() == 0


async def test_a_form_of_calls_that_nobody_knows(tmp_path: Path) -> None:
    path = write_model(tmp_path / "plain.gguf", template="{{ tools }}{{ messages[0].content }}")
    engine = LlamaCppEngine(LlamaOptions(path=path, parallel=1))
    await engine.start()
    try:
        with pytest.raises(Unsupported) as error:
            await ask(engine, tools=[ADD], response_format={"type": "json_object"})
        assert error.value.param == "response_format"
    finally:
        await engine.stop()


async def test_parameters_must_be_of_an_object(engine: LlamaCppEngine) -> None:
    tool = {"type": "function", "function": {"name": "t", "parameters": {"type": "string"}}}
    with pytest.raises(InvalidRequest) as error:
        await ask(engine, tools=[ADD, tool], tool_choice="required")
    assert error.value.param == "tools.1.function.parameters"
