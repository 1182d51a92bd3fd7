import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.engines.hermes_text import HermesReader
from dev_opsgpt.worker.engine import Delta, TokenLogprob

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


def _read(pieces: list[str], **fields: Any) -> tuple[str, str, list[tuple[str, str]], str]:
    reader = HermesReader({"add"}, **fields)
    deltas = [out for piece in pieces for out in reader.feed(Delta(content=piece))]
    deltas += reader.end()
    calls = [(c.name or "", c.arguments) for delta in deltas for c in delta.tool_calls]
    return (
        "".join(delta.content for delta in deltas),
        "".join(delta.reasoning for delta in deltas),
        calls,
        reader.finish("stop"),
    )


@pytest.mark.parametrize(
    ("text", "content", "reasoning", "calls"),
    [
        ("plain  text\n", "plain  text\n", "", 0),
        (CALL, "", "", 1),
        (f"Let me add.\n\n{CALL}\n{CALL}\n", "Let me add.", "", 2),
        (CALL.removesuffix("\n</tool_call>"), "", "", 1),
        (f"<think>\nhm {CALL}\n</think>\n\n{CALL}", "", f"hm {CALL}", 1),
        ("<think>hm</think>\n\nyes", "yes", "hm", 0),
        ("<think>cut o", "", "cut o", 0),
        ("a <think> later", "a <think> later", "", 0),
        ("a < b <tool and <tool_call", "a < b <tool and <tool_call", "", 0),
        ("<tool_call>{bad}</tool_call>!", "<tool_call>{bad}</tool_call>!", "", 0),
        (CALL.replace("add", "nope"), CALL.replace("add", "nope"), "", 0),
        ('<tool_call>{"name": "add", "arg', '<tool_call>{"name": "add", "arg', "", 0),
        (CALL.replace('{"a": 1}', '"{\\"a\\": 1}"'), "", "", 1),
        (CALL.replace('{"a": 1}', "[1]"), CALL.replace('{"a": 1}', "[1]"), "", 0),
    ],
)
def test_forms(text: str, content: str, reasoning: str, calls: int) -> None:
    expected = (content, reasoning, [("add", '{"a": 1}')] * calls)
    for pieces in ([text], list(text), [text[:7], text[7:30], text[30:]]):
        *found, finish = _read(pieces)
        assert tuple(found) == expected
        assert finish == ("tool_calls" if calls else "stop")


def test_reasoning_opened_by_the_prompt() -> None:
    assert _read(["hm</think>", "yes"], thinking=True)[:2] == ("yes", "hm")


def test_one_call_only() -> None:
    reader = HermesReader({"add"}, parallel=False)
    found = list(reader.feed(Delta(content=CALL + CALL)))
    assert reader.done
    assert sum(len(delta.tool_calls) for delta in found) == 1
    assert list(reader.end()) == []


def test_log_probabilities_are_those_of_the_content() -> None:
    reader = HermesReader({"add"})
    shown = []
    for token in ["Hi", " <", "b", " ", "<tool_call>", '{"name"', "x"]:
        entry = TokenLogprob(token, -1.0, list(token.encode()))
        shown += list(reader.feed(Delta(content=token, logprobs=[entry])))
    assert [e.token for delta in shown for e in delta.logprobs] == ["Hi", " <", "b"]


@given(st.lists(st.sampled_from([*"<>/ \n{}", "think", "tool_call", CALL, "<think>", "é"])))
def test_any_text_in_any_pieces(parts: list[str]) -> None:
    whole = "".join(parts)
    assert _read(parts) == _read(list(whole)) == _read([whole])
    for _, arguments in _read(parts)[2]:
        json.loads(arguments)
