import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.engines.text_formats.deepseek import DEEPSEEK
from dev_opsgpt.engines.text_formats.form import PLAIN, Form, Tools
from dev_opsgpt.engines.text_formats.hermes import HERMES
from dev_opsgpt.engines.text_formats.llama3 import LLAMA3
from dev_opsgpt.engines.text_formats.mistral import MAGISTRAL, MISTRAL
from dev_opsgpt.engines.text_formats.reader import FormReader
from dev_opsgpt.worker.engine import Delta, TokenLogprob

from .reading import read

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
LLAMA = '{"name": "add", "parameters": {"a": 1}}'
LIST = '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]'
NAMED = '[TOOL_CALLS]add[ARGS]{"a": 1}'
V3 = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 1}\n```<｜tool▁call▁end｜>'
V31 = '<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>'
BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
NAMES: Tools = {"add": {}, "mul": {}}


@pytest.mark.parametrize(
    ("form", "text", "content", "reasoning", "calls"),
    [
        (HERMES, "plain  text\n", "plain  text\n", "", 0),
        (HERMES, CALL, "", "", 1),
        (HERMES, CALL.replace("arguments", "parameters"), "", "", 1),
        (HERMES, f"Let me add.\n\n{CALL}\n{CALL}\n", "Let me add.", "", 2),
        (HERMES, CALL.removesuffix("\n</tool_call>"), "", "", 1),
        (HERMES, CALL.removesuffix("}\n</tool_call>"), "", "", 1),
        (HERMES, f"<think>\nhm {CALL}\n</think>\n\n{CALL}", "", f"hm {CALL}", 1),
        (HERMES, "<think>hm</think>\n\nyes", "yes", "hm", 0),
        (HERMES, "<think></think>yes", "yes", "", 0),
        (HERMES, "<think>cut o", "", "cut o", 0),
        (HERMES, "a <think> later", "a <think> later", "", 0),
        (HERMES, "no </think> start", "no </think> start", "", 0),
        (HERMES, "a < b <tool and <tool_call", "a < b <tool and <tool_call", "", 0),
        (HERMES, "so: <tool_call>{bad}</tool_call>!", "so: <tool_call>{bad}</tool_call>!", "", 0),
        (HERMES, CALL.replace("add", "nope"), CALL.replace("add", "nope"), "", 0),
        (HERMES, '<tool_call>{"name": "add", "arg', '<tool_call>{"name": "add", "arg', "", 0),
        (HERMES, CALL.replace('{"a": 1}', '"{\\"a\\": 1}"'), "", "", 1),
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>', "", "", 1),
        (HERMES, CALL.replace('{"a": 1}', "[1]"), CALL.replace('{"a": 1}', "[1]"), "", 0),
        (HERMES, f"<tool_call>{CALL}", "<tool_call>", "", 1),
        (LLAMA3, LLAMA, "", "", 1),
        (LLAMA3, f" {LLAMA}; {LLAMA}\n", "", "", 2),
        (LLAMA3, f"{LLAMA}\n{LLAMA}", "", "", 2),
        (LLAMA3, f"<|python_tag|>{LLAMA}", "", "", 1),
        (LLAMA3, f"<|python_tag|>{LLAMA};<|python_tag|>{LLAMA}", "", "", 2),
        (LLAMA3, LLAMA.replace('{"name', '{"type": "function", "name'), "", "", 1),
        (LLAMA3, f"No: {LLAMA}", f"No: {LLAMA}", "", 0),
        (LLAMA3, '{"city": "Paris"}', '{"city": "Paris"}', "", 0),
        (LLAMA3, '<|python_tag|>x.call(q="1")', '<|python_tag|>x.call(q="1")', "", 0),
        (LLAMA3, LLAMA + "; done", "; done", "", 1),
        (MISTRAL, LIST, "", "", 1),
        (MISTRAL, LIST.replace("}]", '}, {"name": "add", "arguments": {"a": 1}}]'), "", "", 2),
        (MISTRAL, LIST.replace("}}]", '}, "id": "123456789"}]'), "", "", 1),
        (MISTRAL, f"Well. {LIST}", "Well.", "", 1),
        (MISTRAL, NAMED + NAMED, "", "", 2),
        (MISTRAL, NAMED.replace("[ARGS]", ""), "", "", 1),
        (MISTRAL, NAMED.replace("[ARGS]", "[CALL_ID]123456789[ARGS]"), "", "", 1),
        (MISTRAL, "[TOOL_CALLS][]", "[TOOL_CALLS][]", "", 0),
        (MISTRAL, "[TOOL_CALLS]nope[ARGS]{}", "[TOOL_CALLS]nope[ARGS]{}", "", 0),
        (MAGISTRAL, f"[THINK]hm[/THINK]\n{NAMED}", "", "hm", 1),
        (DEEPSEEK, f"{BEGIN}{V3}{END}", "", "", 1),
        (DEEPSEEK, f"<think>hm\n</think>\n\nI add.{BEGIN}{V3}\n{V3}{END}", "I add.", "hm", 2),
        (DEEPSEEK, f"{BEGIN}{V31}{V31}{END}", "", "", 2),
        (DEEPSEEK, f"{BEGIN}{V31}", "", "", 1),
        (DEEPSEEK, f"{BEGIN}oh{END}", f"{BEGIN}oh{END}", "", 0),
        (PLAIN, f"<think>hm</think>{CALL}", CALL, "hm", 0),
    ],
)
def test_forms(form: Form, text: str, content: str, reasoning: str, calls: int) -> None:
    expected = (content, reasoning, [("add", '{"a": 1}')] * calls)
    for pieces in ([text], list(text), [text[:7], text[7:30], text[30:]]):
        found, finish = read(form, pieces, NAMES)
        assert found == expected
        assert finish == ("tool_calls" if calls else "stop")


@pytest.mark.parametrize("text", ["hm</think>yes", "\nhm\n</think>\n\nyes", "<think>hm</think>yes"])
def test_reasoning_opened_by_the_prompt(text: str) -> None:
    for pieces in ([text], list(text)):
        assert read(HERMES, pieces, NAMES, thinking=True)[0] == ("yes", "hm", [])


def test_whether_the_reasoning_goes_on() -> None:
    reader = FormReader(PLAIN, {})
    seen = []
    for piece in ["<think>", "hm", "</think>", "yes"]:
        list(reader.feed(Delta(content=piece)))
        seen.append(reader.reasoning)
    assert seen == [True, True, False, False]


def test_one_call_only() -> None:
    reader = FormReader(HERMES, NAMES, parallel=False)
    found = list(reader.feed(Delta(content=CALL + CALL)))
    assert reader.done
    assert {call.index for delta in found for call in delta.tool_calls} == {0}
    assert list(reader.end()) == []


@pytest.mark.parametrize(
    ("form", "text"),
    [(HERMES, CALL), (LLAMA3, LLAMA), (MISTRAL, LIST), (MISTRAL, NAMED), (DEEPSEEK, BEGIN + V31)],
)
def test_arguments_are_streamed(form: Form, text: str) -> None:
    text = text.replace('{"a": 1}', json.dumps({"text": '} \\ " ] 🙂 ' * 20}))
    reader = FormReader(form, NAMES)
    deltas = [list(reader.feed(Delta(content=letter))) for letter in text]
    pieces = [call.arguments for some in deltas for delta in some for call in delta.tool_calls]
    assert len(pieces) > 200
    assert json.loads("".join(pieces))["text"].startswith('} \\ " ] 🙂 }')


@pytest.mark.parametrize(
    ("form", "text"), [(HERMES, CALL), (LLAMA3, LLAMA), (MISTRAL, NAMED), (DEEPSEEK, BEGIN + V3)]
)
def test_cut_at_every_length(form: Form, text: str) -> None:
    for limit in range(1, len(text)):
        (content, _, calls), finish = read(form, list(text[:limit]), NAMES, reason="length")
        assert finish == "length"
        if calls:
            assert content == ""
            assert '{"a": 1}'.startswith(calls[0][1])
        else:
            assert content == text[:limit]


@pytest.mark.parametrize("form", [HERMES, LLAMA3, MISTRAL, DEEPSEEK])
@pytest.mark.parametrize("text", [CALL, LLAMA, LIST, NAMED, BEGIN + V3, "<tool_call>", "[", "{"])
def test_long_runs_of_blanks(form: Form, text: str) -> None:
    pieces = [*text, *"\n" * 2000, "x"]
    (content, _, calls), _ = read(form, pieces, NAMES)
    assert content.endswith("x")
    assert len(calls) <= 1


def test_log_probabilities_are_those_of_the_content() -> None:
    reader = FormReader(HERMES, {"add": {}})
    shown = []
    for token in ["Hi", " <", "b", "! ", "<tool_call>", '{"name"', "x"]:
        entry = TokenLogprob(token, -1.0, list(token.encode()))
        shown += list(reader.feed(Delta(content=token, logprobs=[entry])))
    shown += reader.end()
    everything = "".join(delta.content for delta in shown)
    assert everything == 'Hi <b! <tool_call>{"name"x'
    assert "".join(e.token for delta in shown for e in delta.logprobs) == everything


def test_log_probabilities_of_a_call_are_not_shown() -> None:
    reader = FormReader(HERMES, {"add": {}})
    shown = []
    for token in ["<think>", "hm", "</think>", "Hi", "!\n", CALL[:20], CALL[20:], "\n", "yes"]:
        entry = TokenLogprob(token, -1.0, list(token.encode()))
        shown += list(reader.feed(Delta(content=token, logprobs=[entry])))
    shown += reader.end()
    assert "".join(delta.content for delta in shown) == "Hi!yes"
    assert [e.token for delta in shown for e in delta.logprobs] == ["Hi", "!", "yes"]


PARTS = [
    *'<>/ \n{}[];:,"',
    *("think", "tool_call", "<think>", "</think>", "é", '"name"', '"add"', '"arguments"', "add"),
    *(CALL, LLAMA, LIST, NAMED, V3, V31, BEGIN, END, "[TOOL_CALLS]", "<|python_tag|>", "[ARGS]"),
]


@given(
    st.sampled_from([HERMES, LLAMA3, MISTRAL, MAGISTRAL, DEEPSEEK, PLAIN]),
    st.lists(st.sampled_from(PARTS)),
    st.booleans(),
)
def test_any_text_in_any_pieces(form: Form, parts: list[str], thinking: bool) -> None:
    whole = "".join(parts)
    found = read(form, parts, NAMES, thinking=thinking)
    assert found == read(form, list(whole), NAMES, thinking=thinking)
    assert found == read(form, [whole], NAMES, thinking=thinking)
    if not thinking and not any(mark in whole for mark in (*form.think, *form.opens, "{")):
        assert found[0] == (whole, "", [])
