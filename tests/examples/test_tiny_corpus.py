"""The text that tiny-chat is trained on, and the template that renders it."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from tiny_chat.chat_format import CONTROL_TOKENS, ChatFormat  # noqa: E402
from tiny_chat.corpus import Dialogue, dialogues  # noqa: E402
from tiny_chat.corpus.dialogue import Voice, expand  # noqa: E402
from tiny_chat.corpus.intents import all_intents, intents_for, parse  # noqa: E402

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}


@pytest.fixture(scope="module")
def sample() -> list[Dialogue]:
    return list(itertools.islice(dialogues(1), 3000))


def test_equal_seeds_give_equal_dialogues(sample: list[Dialogue]) -> None:
    assert list(itertools.islice(dialogues(1), 300)) == sample[:300]
    assert list(itertools.islice(dialogues(2), 300)) != sample[:300]


def test_no_turn_is_empty(sample: list[Dialogue]) -> None:
    for dialogue in sample:
        for turn in dialogue.messages:
            assert turn["content"].strip() or turn.get("tool_calls"), dialogue


def test_turns_alternate_and_the_assistant_has_the_last_word(sample: list[Dialogue]) -> None:
    for dialogue in sample:
        roles = "".join(turn["role"][0] for turn in dialogue.messages)
        assert re.fullmatch(r"s?([ut]a)+", roles), dialogue


def test_no_control_token_and_no_open_choice_is_in_a_text(sample: list[Dialogue]) -> None:
    for dialogue in sample:
        for turn in dialogue.messages:
            assert not any(token in turn["content"] for token in CONTROL_TOKENS)
            assert not re.search(r"\[[^\]\n]*\|[^\]\n]*\]|\{[a-z]\}", turn["content"]), turn


def test_calls_name_an_offered_tool_and_its_parameters(sample: list[Dialogue]) -> None:
    calls = 0
    for dialogue in sample:
        offered = {t["function"]["name"]: t["function"]["parameters"] for t in dialogue.tools}
        for turn in dialogue.messages:
            for call in turn.get("tool_calls", ()):
                calls += 1
                function = call["function"]
                properties = offered[function["name"]]["properties"]
                assert list(function["arguments"]) == list(properties)
    assert calls > 100


def test_both_languages_are_there(sample: list[Dialogue]) -> None:
    texts = [turn["content"] for d in sample for turn in d.messages if turn["role"] == "assistant"]
    share = sum(bool(re.search(r"[\u4e00-\u9fff]", text)) for text in texts) / len(texts)
    assert 0.1 < share < 0.35


def test_some_conversations_are_long(sample: list[Dialogue]) -> None:
    lengths = [len(ChatFormat().example(dialogue)) for dialogue in sample[:1000]]
    assert max(lengths) > 6000
    assert sorted(lengths)[500] < 1000


def test_every_intent_can_be_asked_and_answered() -> None:
    names = [intent.name for intent in all_intents()]
    assert len(names) == len(set(names))
    english, chinese = intents_for(Voice())[0], intents_for(Voice("zh", "zh"))[0]
    assert {intent.name for intent in (*english, *chinese)} == set(names)


def test_a_broken_intent_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not an intent's line"):
        parse("== name\nQ: Hello\nwhat is this")


def test_expand_takes_one_option_and_keeps_other_brackets() -> None:
    class First:
        @staticmethod
        def choice(options: list[str]) -> str:
            return options[0]

    rng: Any = First()
    assert expand("[a|b] x[0] [c [d|e]|f]", rng) == "a x[0] c d"


def test_the_corpus_needs_no_torch() -> None:
    code = "import sys, tiny_chat.corpus, tiny_chat.chat_format; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, check=True)


def test_the_template_renders_plain_turns() -> None:
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert ChatFormat().render(turns, ask=True) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_template_takes_parts_missing_content_and_any_role() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    turns: list[dict[str, Any]] = [
        {"role": "developer", "content": "D"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
        {"role": "narrator", "content": "N"},
    ]
    assert ChatFormat().render(turns) == (
        "<|im_start|>system\nD<|im_end|>\n<|im_start|>user\nab<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>narrator\nN<|im_end|>\n"
    )


@pytest.mark.parametrize("arguments", [{"city": "Paris"}, '{"city": "Paris"}'])
def test_the_template_renders_tools_in_hermes_style(arguments: object) -> None:
    call = {"function": {"name": "get_weather", "arguments": arguments}}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "one"},
        {"role": "tool", "content": "two"},
    ]
    text = ChatFormat().render(turns, [WEATHER])
    one_call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    assert f"<tools>\n{json.dumps(WEATHER)}\n</tools>" in text
    assert f"<|im_start|>assistant\n{one_call}\n{one_call}<|im_end|>\n" in text
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\none\n</tool_response>"
        "\n<tool_response>\ntwo\n</tool_response><|im_end|>\n"
    )
