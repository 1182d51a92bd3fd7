"""JSON or calls: whatever is drawn of the grammar of each form is read back as one of the two."""

import json
from typing import Any

import pytest

from dev_opsgpt.engines.hf.grammar import Grammars
from dev_opsgpt.engines.hf.sequence import LoadedModel
from dev_opsgpt.engines.hf.token_text import table_of
from dev_opsgpt.engines.json_or_calls import JsonOrCalls
from dev_opsgpt.engines.text_formats import choose, hermes, mistral
from dev_opsgpt.engines.text_formats.form import Form
from dev_opsgpt.protocol.errors import InternalError, InvalidRequest
from dev_opsgpt.protocol.openai import Tool
from dev_opsgpt.worker.engine import Delta

from .test_grammar import draw
from .tiny import tiny_tokenizer

FORMS = {sign.form.name: sign.form for sign in choose.SIGNS if sign.form.call}
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "string", "maxLength": 3}},
    "required": ["x"],
    "additionalProperties": False,
}


def tool(name: str, parameters: dict[str, Any] | None = None) -> Tool:
    function = {"name": name, "parameters": parameters}
    return Tool.model_validate({"type": "function", "function": function})


ADD = tool(
    "add",
    {
        "properties": {"a": {"$ref": "#/$defs/n"}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"n": {"enum": [1, 22]}},
    },
)
TOOLS = [(ADD, "tools.0"), (tool("ping-1.0"), "tools.1")]


def grammars(form: Form, special: bool) -> tuple[Grammars, Any, int, int]:
    """Of a tokenizer that has the form's marks as special tokens, or as none."""
    tokenizer = tiny_tokenizer()
    marks = sorted(form.marks - {"<think>", "</think>"})
    tokenizer.add_tokens(marks, special_tokens=special)
    table = table_of(tokenizer, form.marks)
    ends = frozenset([tokenizer.eos_token_id])
    loaded = LoadedModel(None, tokenizer, 99, ends, len(tokenizer), None)  # type: ignore[arg-type]
    return Grammars(loaded, table), table, len(tokenizer), tokenizer.eos_token_id


def read(choice: JsonOrCalls, text: str, size: int) -> tuple[str, list[tuple[str, str]], str]:
    """Content, calls and finish reason of a text that comes in pieces of this size."""
    reader = choice.reader()
    content, calls = "", {}
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    found = [delta for piece in pieces for delta in reader.feed(Delta(content=piece))]
    for delta in [*found, *reader.end()]:
        content += delta.content
        for call in delta.tool_calls:
            name, arguments = calls.get(call.index, ("", ""))
            calls[call.index] = (name + (call.name or ""), arguments + call.arguments)
    return content, list(calls.values()), reader.finish("stop")


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", FORMS)
async def test_what_is_drawn_is_read_back(name: str, special: bool) -> None:
    form = FORMS[name]
    some, table, width, end = grammars(form, special)
    choice = JsonOrCalls(SCHEMA, TOOLS, form)
    kinds = set()
    for seed in range(60):
        text = draw(await some.choice(choice), table, width, end, seed)
        content, calls, finish = read(choice, text, 1 + seed % 7)
        kinds.add(finish)
        if finish == "stop":
            assert set(json.loads(content)) == {"x"}
            assert calls == []
            continue
        assert (content, finish) == ("", "tool_calls")
        for called, arguments in calls:
            wanted = ({"a": 1}, {"a": 22}) if called == "add" else ({},)
            assert json.loads(arguments) in wanted
    assert kinds == {"stop", "tool_calls"}


@pytest.mark.parametrize("name", FORMS)
async def test_one_call_where_one_is_allowed(name: str) -> None:
    form = FORMS[name]
    some, table, width, end = grammars(form, True)
    choice = JsonOrCalls(SCHEMA, TOOLS, form, parallel=False)
    for seed in range(20):
        text = draw(await some.choice(choice), table, width, end, seed)
        assert len(read(choice, text, 5)[1]) <= 1


def test_marks_inside_of_json_are_text() -> None:
    text = json.dumps({"x": '[TOOL_CALLS]add {} <tool_call>{"name": "add", "arguments": {}}'})
    for form in FORMS.values():
        for size in (1, 4, len(text)):
            choice = JsonOrCalls({}, TOOLS, form)
            assert read(choice, text, size) == (text, [], "stop")


def test_an_array_may_begin_like_a_mark() -> None:
    choice = JsonOrCalls({}, TOOLS, mistral.MISTRAL)
    for text in ("[", "[1]", " [true, false]"):
        if text == "[":
            with pytest.raises(InternalError):
                read(choice, text, 1)
        else:
            assert read(choice, text, 1) == (text, [], "stop")


def test_a_cut_answer() -> None:
    for text in ("", "<tool_", '{"x": ', '<tool_call>\n{"name": "ad'):
        reader = JsonOrCalls({}, TOOLS, hermes.HERMES).reader()
        found = [*reader.feed(Delta(content=text)), *reader.end()]
        assert "".join(delta.content for delta in found) == text
        assert reader.finish("length") == "length"


async def test_what_cannot_be_followed_is_named() -> None:
    some, *_ = grammars(hermes.HERMES, True)
    bad = {"type": "object", "properties": {"a": {"type": "nonsense"}}}
    for schema, tools, param in (
        ({"type": "nonsense"}, TOOLS, "response_format"),
        (SCHEMA, [*TOOLS, (tool("t", bad), "tools.2")], "tools.2.function.parameters"),
        (SCHEMA, [(tool("t", {"type": "string"}), "tools.0")], "tools.0.function.parameters"),
    ):
        with pytest.raises(InvalidRequest) as error:
            await some.choice(JsonOrCalls(schema, tools, hermes.HERMES))
        assert error.value.param == param
