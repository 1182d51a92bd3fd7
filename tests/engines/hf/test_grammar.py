"""Grammars on their own: whatever is drawn of what they allow is JSON of the schema."""

import asyncio
import json
import random
import re
from typing import Any

import jsonschema_rs
import pytest

from dev_opsgpt.engines.forced_tools import WholeCall
from dev_opsgpt.engines.hf.grammar import Grammars, _compiled
from dev_opsgpt.engines.hf.params import Defaults
from dev_opsgpt.engines.hf.prompt import prompt_of
from dev_opsgpt.engines.hf.sequence import Constraint, LoadedModel
from dev_opsgpt.engines.hf.template import ChatTemplate
from dev_opsgpt.engines.hf.token_text import TokenTable, table_of
from dev_opsgpt.engines.text_formats.choose import SIGNS, reader_of
from dev_opsgpt.engines.text_formats.form import Form
from dev_opsgpt.protocol.errors import InternalError, InvalidRequest, Unsupported
from dev_opsgpt.worker.engine import Delta

from ..answers import ADD, WEATHER, chat
from ..random_model import HERMES
from ..text_formats.reading import read
from .tiny import tiny_tokenizer
from .tokenizers import sentence_piece, words

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["x", "你", "🙂"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def grammars(tokenizer: Any, extra: int = 7) -> tuple[Grammars, TokenTable, int]:
    """With logits wider than the vocabulary, as many models have them."""
    table = table_of(tokenizer)
    width = len(tokenizer) + extra
    ends = frozenset([tokenizer.eos_token_id])
    return Grammars(LoadedModel(None, tokenizer, 99, ends, width, None), table), table, width  # type: ignore[arg-type]


def draw(
    constraint: Constraint,
    table: TokenTable,
    width: int,
    end: int,
    seed: int,
    close: list[int] | None = None,
) -> str:
    """Any text that is allowed. ``close`` are tokens that end a text that is free."""
    dice = random.Random(seed)
    found = b""
    closing: list[int] = []
    while not constraint.done:
        mask = constraint.mask()
        assert len(mask) == -(-width // 32)
        allowed = [id_ for id_ in range(width) if int(mask[id_ // 32]) >> (id_ % 32) & 1]
        assert all(id_ == end or table.bytes_of(id_) for id_ in allowed)
        if close and not closing and len(allowed) > width // 2 and dice.random() < 0.2:
            closing = list(close)
        token = closing.pop(0) if closing else dice.choice(allowed)
        assert token in allowed
        if token == end:
            break
        constraint.accept(token)
        found += table.bytes_of(token)
    return found.decode()


@pytest.mark.parametrize("make", [tiny_tokenizer, sentence_piece])
async def test_what_is_allowed_is_json(make: Any) -> None:
    tokenizer = make()
    some, table, width = grammars(tokenizer)
    for seed in range(20):
        constraint = await some.constraint(SCHEMA, "response_format")
        found = json.loads(draw(constraint, table, width, tokenizer.eos_token_id, seed))
        assert set(found) == {"name", "age", "tags"}
        assert len(found["name"]) <= 6
        assert 0 <= found["age"] <= 150
        assert set(found["tags"]) <= {"x", "你", "🙂"}


async def test_each_sequence_has_its_own() -> None:
    tokenizer = tiny_tokenizer()
    some, _, _ = grammars(tokenizer)
    one = await some.constraint({"const": "abc"}, "x")
    for token in tokenizer.encode('"abc"'):
        one.accept(token)
    assert one.done
    other = await some.constraint({"const": "abc"}, "x")
    assert not other.done
    with pytest.raises(InternalError):
        other.accept(tokenizer.encode("z")[0])


async def test_the_same_schema_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    some, _, _ = grammars(tiny_tokenizer())
    compiled = []

    def compiling(*given: Any) -> Any:
        compiled.append(given)
        return _compiled(*given)

    monkeypatch.setattr("dev_opsgpt.engines.hf.grammar._compiled", compiling)
    await asyncio.gather(*(some.constraint(SCHEMA, "x") for _ in range(8)))
    assert len(compiled) == 1
    for number in range(100):
        await some.constraint({"const": number}, "x")
    assert len(some._known) <= 64


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#/$defs/nowhere"},
        {"type": "string", "pattern": "("},
        {"type": "object", "unevaluatedProperties": False},
        {"type": "object", "properties": [1]},
        {"const": 1, "enum": 3},
    ],
)
async def test_schemas_that_cannot_be_followed(schema: dict[str, Any]) -> None:
    some, _, _ = grammars(tiny_tokenizer())
    for _ in range(2):
        with pytest.raises(InvalidRequest) as error:
            await some.constraint(schema, "response_format")
        assert error.value.param == "response_format"
        assert "\n" not in error.value.message


async def test_deep_and_large_schemas() -> None:
    some, _, _ = grammars(tiny_tokenizer())
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(50):
        deep = {"type": "array", "items": deep, "minItems": 1}
    await some.constraint(deep, "x")
    for _ in range(20_000):
        deep = {"items": deep}
    with pytest.raises(InvalidRequest):
        await some.constraint(deep, "x")
    await some.constraint({"enum": [f"value {i}" for i in range(2000)]}, "x")


async def test_a_tokenizer_whose_tokens_are_no_bytes() -> None:
    some, _, _ = grammars(words())
    assert not some.usable
    with pytest.raises(Unsupported) as error:
        await some.constraint(SCHEMA, "response_format")
    assert error.value.param == "response_format"


NAMES = {"add": ADD, "get_weather": WEATHER}
FORMS = [
    form for form in dict.fromkeys(sign.form for sign in SIGNS) if form.call and not form.tagged
]


def marked(form: Form) -> tuple[Any, TokenTable]:
    """A tokenizer that has the marks of a form as special tokens."""
    tokenizer = tiny_tokenizer()
    marks = re.findall(r"<[^<>]+>|\[[A-Z_]+\]", "".join(sorted(form.marks)))
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(marks))})
    return tokenizer, table_of(tokenizer, form.marks)


@pytest.mark.parametrize("form", FORMS, ids=repr)
@pytest.mark.parametrize("tools", [[ADD, WEATHER], [WEATHER]], ids=["two", "one"])
async def test_a_forced_call_is_one_of_the_form(form: Form, tools: list[dict[str, Any]]) -> None:
    tokenizer, table = marked(form)
    width = len(tokenizer)
    ends = frozenset([tokenizer.eos_token_id])
    some = Grammars(LoadedModel(None, tokenizer, 99, ends, width, None), table)  # type: ignore[arg-type]
    tokenizer.chat_template = f"{{{{ messages[0].content }}}}{{{{ tools }}}}{form.call}"
    own = ChatTemplate(tokenizer)
    own.form = form
    for seed in range(6):
        request = chat(tools=tools, tool_choice="required")
        prompt = prompt_of(request, own, Defaults())
        constraint = await some.of(prompt)
        assert constraint is not None
        text = draw(constraint, table, width, tokenizer.eos_token_id, seed)
        deltas = list(prompt.reader.feed(Delta(content=text)))
        calls = [call for delta in deltas for call in delta.tool_calls]
        name = calls[0].name or ""
        arguments = json.loads("".join(call.arguments for call in calls))
        jsonschema_rs.validate(NAMES[name]["function"]["parameters"], arguments)
        assert prompt.reader.finish("stop") == "tool_calls"
        # It is what the model itself would have written.
        whole = form.forced + text + form.call.partition("{arguments}")[2]
        ((found, given),) = read(form, [whole], {name: {}})[0][2]
        assert (found, json.loads(given)) == (name, arguments)
        assert form.call.startswith(form.forced)


STRICT = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": '
END = "}\n</tool_call>"


async def strict(template: str = HERMES, **fields: Any) -> tuple[Constraint | None, Any]:
    tokenizer = tiny_tokenizer(template=template)
    tokenizer.add_tokens(["<tool_call>", "</tool_call>", "<think>", "</think>"])
    some, _, _ = grammars(tokenizer)
    fields = {"tools": [STRICT, ADD], **fields}
    return await some.of(prompt_of(chat(**fields), ChatTemplate(tokenizer), Defaults())), tokenizer


def allowed(constraint: Constraint, tokenizer: Any, text: str) -> bool:
    """Whether the text may be generated next; it is, as far as that goes."""
    for token in tokenizer.encode(text, add_special_tokens=False):
        mask = constraint.mask()
        if mask is not None and not int(mask[token // 32]) >> (token % 32) & 1:
            return False
        constraint.accept(token)
    return True


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("Any text, {and} <tool> or </tool_call>, 你好 <", True),
        (f'{CALL}{{"city": "Rome"}}{END}', True),
        (f'Well.\n{CALL}{{"city": "Rome"}}{END}\n{CALL}{{"city": "Bonn"}}{END} so', True),
        (f'{CALL}{{"town', False),
        (f'{CALL}{{"city": 1', False),
        (f'{CALL}{{"city": "a name too long', False),
        (f'Well. {CALL}{{"city": "Rome"}}{END}{CALL}{{}}', False),
        ('<tool_call>\n{"name": "nobody', False),
        ('<tool_call>\n{"name": "add", "arguments": {"anything": [1, {"b": null}]}}', True),
        (f'<think>I might {CALL}{{"town": 1}}</think>{CALL}{{"city": "Rome"}}{END}', True),
        (f'<think>hm</think>\n\n{CALL}{{"town', False),
        ("<thinking aloud> is text", True),
        (f'<thing> {CALL}{{"town', False),
    ],
)
async def test_a_strict_tool_that_may_be_called(text: str, may: bool) -> None:
    constraint, tokenizer = await strict()
    assert constraint is not None
    assert allowed(constraint, tokenizer, text) is may
    assert not constraint.done


async def test_a_text_may_end_anywhere_but_in_a_call() -> None:
    constraint, tokenizer = await strict()
    assert constraint is not None
    for text, ends in [("Well. ", True), (CALL, False), (f'{{"city": "x"}}{END}', True)]:
        assert allowed(constraint, tokenizer, text)
        mask = constraint.mask()
        end = tokenizer.eos_token_id
        assert mask is not None
        assert bool(int(mask[end // 32]) >> (end % 32) & 1) is ends


async def test_reasoning_that_the_prompt_opens_is_left_alone() -> None:
    constraint, tokenizer = await strict(template=HERMES + "<think>\n")
    assert constraint is not None
    assert allowed(constraint, tokenizer, f'so {CALL}{{"town": 1}}{END}</think> {CALL}')
    assert not allowed(constraint, tokenizer, '{"town')


async def test_only_strict_tools_that_may_be_called_are_held() -> None:
    assert (await strict(tools=[WEATHER, ADD]))[0] is None
    assert (await strict(tool_choice="none"))[0] is None
    coder = "{{ messages[0].content }}{{ tools }}<tool_call><function="
    assert (await strict(template=coder))[0] is None


async def test_a_strict_tool_that_cannot_be_followed() -> None:
    broken = {"type": "object", "properties": {"a": {"type": "nonsense"}}}
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": broken}}
    with pytest.raises(InvalidRequest) as error:
        await strict(tools=[ADD, tool])
    assert error.value.param == "tools.1.function.parameters"


PLAN = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "description": "any text"},
        "kind": {"enum": ["one", "two words"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
        "deep": {"type": "object", "properties": {"on": {"type": "boolean"}}},
    },
    "required": ["title", "kind", "days"],
    "additionalProperties": False,
    "$defs": {"tag": {"enum": ["x", "é"]}},
}
TAGGED = [form for form in dict.fromkeys(sign.form for sign in SIGNS) if form.call and form.tagged]


async def forced(form: Form, *parameters: dict[str, Any], seed: int = 0) -> tuple[Any, str]:
    """The prompt of a call that must be made, and an answer to it."""
    tokenizer, table = marked(form)
    tokenizer.chat_template = f"{{{{ messages[0].content }}}}{{{{ tools }}}}{form.call}"
    own = ChatTemplate(tokenizer)
    own.form = form
    tools = [
        {"type": "function", "function": {"name": f"f{place}", "parameters": one}}
        for place, one in enumerate(parameters)
    ]
    prompt = prompt_of(chat(tools=tools, tool_choice="required"), own, Defaults())
    ends = frozenset([tokenizer.eos_token_id])
    width = len(tokenizer)
    some = Grammars(LoadedModel(None, tokenizer, 99, ends, width, None), table)  # type: ignore[arg-type]
    constraint = await some.of(prompt)
    assert constraint is not None
    close = tokenizer.encode(form.tagged.close if form.tagged else "", add_special_tokens=False)
    return prompt, draw(constraint, table, width, tokenizer.eos_token_id, seed, close)


@pytest.mark.parametrize("form", TAGGED, ids=repr)
async def test_a_forced_call_with_its_arguments_between_tags(form: Form) -> None:
    free = {"type": "object", "properties": {"kind": {"const": "so"}}}
    for seed in range(6):
        prompt, text = await forced(form, PLAN, free, {}, seed=seed)
        assert prompt.text.endswith(form.forced)
        assert form.call.startswith(form.forced)
        deltas = [*prompt.reader.feed(Delta(content=text)), *prompt.reader.end()]
        calls = [call for delta in deltas for call in delta.tool_calls]
        arguments = json.loads("".join(call.arguments for call in calls))
        schema = {"f0": PLAN, "f1": free, "f2": {"maxProperties": 0}}[calls[0].name or ""]
        jsonschema_rs.validate(schema, arguments)
        assert prompt.reader.finish("stop") == "tool_calls"


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"a": {"type": "string", "maxLength": 3}}},
        {"properties": {"a": {"type": ["string", "null"]}}},
        {"properties": {"a": {}}},
        {"properties": {"a": {"type": "string", "enum": ["</parameter>", "</arg_value>"]}}},
        {"properties": {"a<": {"type": "integer"}}},
        {"properties": {"a": {"type": "array", "items": {"$ref": "#"}}}},
        {"properties": {}, "anyOf": [{"required": []}]},
        {"properties": {}, "required": ["b"]},
    ],
)
async def test_what_cannot_stand_between_tags_is_json(parameters: dict[str, Any]) -> None:
    for form in TAGGED:
        schema = {"type": "object", "additionalProperties": False, **parameters}
        tokenizer, _ = marked(form)
        tokenizer.chat_template = f"{{{{ messages[0].content }}}}{{{{ tools }}}}{form.call}"
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        request = chat(tools=[tool], tool_choice="required")
        own = ChatTemplate(tokenizer)
        own.form = form
        prompt = prompt_of(request, own, Defaults())
        assert isinstance(prompt.held, dict)
        assert not prompt.text.endswith(form.forced)


@pytest.mark.parametrize("form", TAGGED, ids=repr)
async def test_a_forced_call_that_is_cut_off(form: Form) -> None:
    prompt, text = await forced(form, PLAN)
    for limit in (0, 3, len(text) // 2):
        reader = WholeCall(reader_of(form, {"f0": PLAN}), form.forced)
        deltas = [*reader.feed(Delta(content=text[:limit])), *reader.end()]
        assert all(delta.content == "" for delta in deltas)
        assert reader.finish("length") == "length"
    with pytest.raises(InternalError):
        WholeCall(reader_of(form, {"f0": PLAN}), form.forced).finish("stop")
    assert not prompt.reader.done
