"""What FastChat's gateway makes of messages with our template, and how it is read back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev_opsgpt.protocol.errors import InvalidRequest
from dev_opsgpt.protocol.fastchat import Conversation
from dev_opsgpt.worker.conversation import IMAGE_MARK, MarkedConversation

MARKED = MarkedConversation("secret")


def rendered(conversation: Conversation, system: str, turns: list[tuple[str, str | None]]) -> str:
    """FastChat's style 2, as its gateway renders it."""
    head = conversation.system_template.format(system_message=system)
    prompt = head + conversation.sep
    for i, (role, text) in enumerate(turns):
        sep = conversation.sep2 if i % 2 else conversation.sep
        prompt += f"{role}: {text}{sep}" if text else f"{role}:"
    return prompt


def prompt_of(system: str, turns: list[tuple[str, str]]) -> str:
    conversation = MARKED.template("x")
    names = {"user": conversation.roles[0], "assistant": conversation.roles[1]}
    said: list[tuple[str, str | None]] = [(names[role], text) for role, text in turns]
    return rendered(conversation, system, [*said, (conversation.roles[1], None)])


def read(prompt: str) -> list[tuple[str, str]]:
    found = MARKED.messages(prompt)
    assert found is not None
    return [(message.role, str(message.content)) for message in found]


# What a mark looks like, but for its tag, and what else could be taken for a border.
NASTY = ["\x02user:", "\x02user:0123\x03", "\x03", "\x04", ": ", ":", "{", "}}", "{system_message}"]
TEXTS = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=8)), max_size=5).map("".join)
TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXTS), min_size=1, max_size=6)


@given(TEXTS, TURNS)
def test_messages_come_back_as_they_were_sent(system: str, turns: list[tuple[str, str]]) -> None:
    expected = ([("system", system)] if system else []) + turns
    assert read(prompt_of(system, turns)) == expected


@given(TEXTS)
def test_other_prompts_are_not_read(prompt: str) -> None:
    assert MARKED.messages(prompt) is None
    assert MARKED.messages("before" + prompt_of("", [("user", prompt)])) is None


def test_another_secret_makes_other_marks() -> None:
    prompt = prompt_of("", [("user", "hello")])
    assert MarkedConversation("other").messages(prompt) is None
    assert MarkedConversation("secret").messages(prompt) is not None


def test_the_template_is_what_fastchat_can_read() -> None:
    conversation = msgspec.to_builtins(MARKED.template("tiny"))
    assert conversation["name"] == "tiny"
    assert conversation["sep_style"] == 2
    assert conversation["sep"] == conversation["sep2"]
    assert conversation["messages"] == []
    assert conversation["stop_str"] is None
    assert "{" not in conversation["roles"][0]


def test_a_conversation_may_end_with_the_assistant() -> None:
    assert read(prompt_of("", [("user", "a"), ("assistant", "b")])) == [
        ("user", "a"),
        ("assistant", "b"),
    ]


def test_images_go_to_the_turns_they_were_in() -> None:
    turns = [("user", f"{IMAGE_MARK}{IMAGE_MARK}two"), ("user", "none"), ("user", IMAGE_MARK)]
    found = MARKED.messages(prompt_of("", turns), ["data:1", "data:2", "data:3"])
    assert found is not None
    parts = [m.content if isinstance(m.content, str) else len(m.content or ()) for m in found]
    assert parts == [3, "none", 1]
    assert found[0].text() == "two"


@pytest.mark.parametrize("images", [["data:1"], ["data:1", "data:2", "data:3"]])
def test_images_that_were_lost_on_the_way_are_an_error(images: list[str]) -> None:
    prompt = prompt_of("", [("user", f"{IMAGE_MARK}{IMAGE_MARK}two")])
    with pytest.raises(InvalidRequest):
        MARKED.messages(prompt, images)


def test_the_mark_of_an_image_is_text_where_no_image_came() -> None:
    turns = [("user", f"{IMAGE_MARK} what is this?")]
    assert read(prompt_of("", turns)) == turns
