"""All formats: a call that a model writes is read as what was meant, in any pieces."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.engines.text_formats.choose import SIGNS
from dev_opsgpt.engines.text_formats.dsml import DSML_FORM
from dev_opsgpt.engines.text_formats.form import PLAIN, Form
from dev_opsgpt.engines.text_formats.glm import GLM
from dev_opsgpt.engines.text_formats.harmony import HARMONY
from dev_opsgpt.engines.text_formats.kimi import KIMI
from dev_opsgpt.engines.text_formats.listed import COMMAND, PIPES, TOOL_CALLS, TOOLCALL
from dev_opsgpt.engines.text_formats.minimax import MINIMAX
from dev_opsgpt.engines.text_formats.qwen_coder import QWEN_CODER, SEED

from .reading import Found, read

FORMS = list(dict.fromkeys([*(sign.form for sign in SIGNS), PLAIN]))
WRITTEN = [form for form in FORMS if form.call]
TOOLS: dict[str, Any] = {
    "add": {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "text": {"type": "string"},
            "on": {"type": "boolean"},
            "list": {"type": "array"},
            "maybe": {"type": ["string", "null"]},
            "other": {"$ref": "#/$defs/number"},
            "any": {},
        },
        "$defs": {"number": {"anyOf": [{"type": "number"}, {"const": "none"}]}},
    },
    "now": {},
}
QWEN = "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>"
SEEDS = (
    "<seed:tool_call>\n<function=add>\n<parameter=a>1</parameter>\n</function>\n</seed:tool_call>"
)
GLM_CALL = "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
INVOKE = '<invoke name="add">\n<parameter name="a">1</parameter>\n</invoke>\n'
M2 = f"<minimax:tool_call>\n{INVOKE}</minimax:tool_call>"
DSML_ARGUMENT = '<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>'
DSML_INVOKE = f'<｜DSML｜invoke name="add">\n{DSML_ARGUMENT}\n</｜DSML｜invoke>\n'
DSML = f"<｜DSML｜function_calls>\n{DSML_INVOKE}{DSML_INVOKE}</｜DSML｜function_calls>"
K2_CALL = '<|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|>'
K2 = f"<|tool_calls_section_begin|>{K2_CALL}{K2_CALL}<|tool_calls_section_end|>"
JSON = '{"name": "add", "arguments": {"a": 1}}'
COHERE = '{"tool_call_id": "0", "tool_name": "add", "parameters": {"a": 1}}'
ANALYSIS = "<|channel|>analysis<|message|>hm<|end|>"
FINAL = "<|channel|>final<|message|>"
COMMENTARY = "<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
NEXT = "<|start|>assistant"


@pytest.mark.parametrize(
    ("form", "text", "content", "reasoning", "calls"),
    [
        (QWEN_CODER, QWEN, "", "", 1),
        (QWEN_CODER, f"I add.\n\n{QWEN}\n{QWEN}\n", "I add.", "", 2),
        (QWEN_CODER, f"hm\n</think>\n\n{QWEN}", "hm\n</think>", "", 1),
        (QWEN_CODER, QWEN.removeprefix("<tool_call>\n"), "", "", 1),
        (QWEN_CODER, QWEN.replace("\n", ""), "", "", 1),
        (QWEN_CODER, QWEN.removesuffix("\n</tool_call>"), "", "", 1),
        (QWEN_CODER, QWEN.removesuffix("</function>\n</tool_call>"), "", "", 1),
        (QWEN_CODER, QWEN.replace("add", "nope"), QWEN.replace("add", "nope"), "", 0),
        (QWEN_CODER, "<tool_call>\nno\n</tool_call>", "<tool_call>\nno\n</tool_call>", "", 0),
        (QWEN_CODER, "a<b and <function", "a<b and <function", "", 0),
        (SEED, f"<seed:think>hm</seed:think>{SEEDS}", "", "hm", 1),
        (GLM, f"\n<think>hm</think>\n{GLM_CALL}{GLM_CALL}", "", "hm", 2),
        (GLM, GLM_CALL.replace("\n", ""), "", "", 1),
        (GLM, GLM_CALL.replace("add", "nope"), GLM_CALL.replace("add", "nope"), "", 0),
        (GLM, "<tool_call>add up", "<tool_call>add up", "", 0),
        (MINIMAX, M2, "", "", 1),
        (MINIMAX, M2.replace(INVOKE, INVOKE * 2), "", "", 2),
        (DSML_FORM, DSML, "", "", 2),
        (DSML_FORM, DSML.replace("function_calls", "tool_calls"), "", "", 2),
        (KIMI, f"Well.{K2}", "Well.", "", 2),
        (KIMI, K2.replace("functions.add:0", "add"), "", "", 2),
        (PIPES, f"<|tool_call|>[{JSON}]", "", "", 1),
        (PIPES, f"<|tool_call|>[{JSON},{JSON}]<|/tool_call|>", "", "", 2),
        (PIPES, f"<|tool_call|>{JSON}<|/tool_call|> ok", "ok", "", 1),
        (TOOLCALL, f"<think>hm</think><TOOLCALL>[{JSON}]</TOOLCALL>", "", "hm", 1),
        (TOOL_CALLS, f"<tool_calls>[{JSON}, {JSON}]</tool_calls>", "", "", 2),
        (TOOL_CALLS, f"<tool_calls>\n{JSON}\n{JSON}\n</tool_calls>", "", "", 2),
        (
            COMMAND,
            f"<|START_THINKING|>hm<|END_THINKING|><|START_ACTION|>[\n  {COHERE},\n  {COHERE}\n]"
            "<|END_ACTION|>",
            *("", "hm", 2),
        ),
        (COMMAND, f"<|START_ACTION|>[{COHERE.replace('0', 'x')}]<|END_ACTION|>", "", "", 1),
        (HARMONY, f"{ANALYSIS}{NEXT}{FINAL}yes", "yes", "hm", 0),
        (HARMONY, f"{ANALYSIS}{NEXT}{FINAL}yes<|return|>", "yes", "hm", 0),
        (HARMONY, f'{ANALYSIS}{NEXT}{COMMENTARY}{{"a": 1}}', "", "hm", 1),
        (HARMONY, f'{COMMENTARY}{{"a": 1}}<|call|>{NEXT}{COMMENTARY}{{"a": 1}}<|call|>', "", "", 2),
        (
            HARMONY,
            f'{ANALYSIS}{NEXT} to=functions.add<|channel|>commentary json<|message|>{{"a": 1}}',
            *("", "hm", 1),
        ),
        (HARMONY, "<|channel|>commentary<|message|>I look.<|end|>", "I look.", "", 0),
        (HARMONY, "Hello, world", "Hello, world", "", 0),
        (HARMONY, "to be < or not", "to be < or not", "", 0),
        (HARMONY, "to=morrow", "to=morrow", "", 0),
        (HARMONY, f"{FINAL}a < b <| c", "a < b <| c", "", 0),
        (HARMONY, "<|channel|>anal", "", "", 0),
        (HARMONY, f"{ANALYSIS}{NEXT}", "", "hm", 0),
        (
            HARMONY,
            f"{COMMENTARY.replace('add', 'x')}1",
            f"{COMMENTARY.replace('add', 'x')}1",
            "",
            0,
        ),
    ],
)
def test_formats(form: Form, text: str, content: str, reasoning: str, calls: int) -> None:
    expected = (content, reasoning, [("add", '{"a": 1}')] * calls)
    for pieces in ([text], list(text), [text[:7], text[7:30], text[30:]]):
        found, finish = read(form, pieces, TOOLS)
        assert found == expected
        assert finish == ("tool_calls" if calls else "stop")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("a", "12", 12),
        ("a", " 12 ", 12),
        ("a", "", ""),
        ("a", "twelve", "twelve"),
        ("a", '"12"', '"12"'),
        ("text", "12", "12"),
        ("text", '{"x": 1}', '{"x": 1}'),
        ("text", ' a "b"\\ \n é🙂', ' a "b"\\ \n é🙂'),
        ("text", "", ""),
        ("text", "a < b </param </parameter", "a < b </param </parameter"),
        ("on", "true", True),
        ("on", "False", False),
        ("on", "maybe", "maybe"),
        ("list", '[1, {"x": null}]', [1, {"x": None}]),
        ("list", "[1", "[1"),
        ("list", '["</parameter></arg_value>"]', ["</parameter></arg_value>"]),
        ("list", "[1] is what", "[1] is what"),
        ("list", '["it', '["it'),
        ("list", "[1, {'x': None, 'y': True}]", [1, {"x": None, "y": True}]),
        ("list", "[print(1)]", "[print(1)]"),
        ("maybe", "None", None),
        ("maybe", "null", None),
        ("maybe", "12", "12"),
        ("other", "1.5", 1.5),
        ("other", "NaN", "NaN"),
        ("other", "none", "none"),
        ("any", "12", 12),
        ("any", "x", "x"),
        ("not in the schema", "[]", []),
    ],
)
def test_values_between_tags(key: str, text: str, value: Any) -> None:
    for form, whole in (
        (
            QWEN_CODER,
            f"<tool_call><function=add><parameter={key}>\n{text}\n</parameter></function>",
        ),
        (GLM, f"<tool_call>add<arg_key>{key}</arg_key><arg_value>{text}</arg_value></tool_call>"),
    ):
        for pieces in ([whole], list(whole)):
            (_, _, calls), _ = read(form, pieces, TOOLS)
            assert [json.loads(arguments) for _, arguments in calls] == [{key: value}]


@pytest.mark.parametrize("form", WRITTEN, ids=repr)
def test_a_call_without_arguments(form: Form) -> None:
    text = form.written("now", {})
    for pieces in ([text], list(text)):
        assert read(form, pieces, TOOLS)[0] == ("", "", [("now", "{}")])


def test_a_text_between_tags_is_streamed() -> None:
    text = f"<tool_call><function=add><parameter=text>{'so it is. ' * 20}</parameter></function>"
    given = [read(QWEN_CODER, [text[:end]], TOOLS)[0][2] for end in (60, 120, 180)]
    sizes = [len(calls[0][1]) for calls in given]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("form", WRITTEN, ids=repr)
def test_cut_at_every_length(form: Form) -> None:
    text = form.written("add", {"a": 1, "text": "so"})
    whole = read(form, [text], TOOLS)[0][2][0][1]
    for limit in range(1, len(text)):
        (content, reasoning, calls), finish = read(form, list(text[:limit]), TOOLS, "length")
        assert finish == "length"
        assert not reasoning
        if calls:
            assert content == ""
            assert whole.startswith(calls[0][1].removesuffix("}"))
        else:
            assert content in (text[:limit], "")


CLOSES = st.sampled_from(["</parameter>", "</arg_value>"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a<>/"{}[]\\é🙂 \n'),
    lambda inner: (
        st.lists(inner | CLOSES, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.text("abcé_ ", min_size=1, max_size=5).map(str.strip).filter(bool)
_KINDS = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places})
    starts = [0, *ends]
    return [text[start:end] for start, end in zip(starts, [*ends, len(text)], strict=True)]


PLACES = st.lists(st.integers(0, 10_000), max_size=30)


@settings(max_examples=200)
@given(
    st.sampled_from(WRITTEN),
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.text("ab <\n", max_size=5),
    PLACES,
)
def test_what_is_written_is_read(
    form: Form, arguments: dict[str, Any], before: str, places: list[int]
) -> None:
    kinds = {key: {"type": _KINDS.get(type(value), "null")} for key, value in arguments.items()}
    tools = {"add": {"type": "object", "properties": kinds}}
    said = "" if form.bare or form.channels else before
    text = said + form.written("add", arguments)
    (content, reasoning, calls), finish = read(form, cut(text, places), tools)
    assert content == said.rstrip()
    assert not reasoning
    assert [(name, json.loads(found)) for name, found in calls] == [("add", arguments)]
    assert finish == "tool_calls"


PARTS = [
    *'<>/ \n{}[];:,"=|\\',
    *("think", "<think>", "</think>", "é🙂", '"name"', '"add"', "add", "functions.", "to=", "12"),
    *("<tool_call>", "<function=", "<function=add>", "<parameter=a>", "<parameter=text>"),
    *("</parameter>", "</function>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>"),
    *(QWEN, SEEDS, GLM_CALL, M2, INVOKE, DSML, K2, K2_CALL, JSON, COHERE),
    *(ANALYSIS, FINAL, COMMENTARY, NEXT, "<|end|>", "<|call|>", "<|message|>", "<|channel|>"),
]


@settings(max_examples=400)
@given(st.sampled_from(FORMS), st.lists(st.sampled_from(PARTS)), PLACES, st.booleans())
def test_any_text_in_any_pieces(
    form: Form, parts: list[str], places: list[int], thinking: bool
) -> None:
    whole = "".join(parts)
    found = read(form, [whole], TOOLS, thinking=thinking)
    assert found == read(form, list(whole), TOOLS, thinking=thinking)
    assert found == read(form, cut(whole, places), TOOLS, thinking=thinking)
    check_nothing_is_lost(form, whole, found[0])


def check_nothing_is_lost(form: Form, whole: str, found: Found) -> None:
    """Outside of calls, what is gone is blanks and marks."""
    content, reasoning, calls = found
    if calls:
        return
    rest = content + reasoning
    for mark in (*form.marks, "analysis", "commentary", "final", "assistant", "json"):
        rest, whole = rest.replace(mark, ""), whole.replace(mark, "")
    if not form.channels:
        assert sorted(rest.replace(" ", "").replace("\n", "")) == sorted(
            whole.replace(" ", "").replace("\n", "")
        )
