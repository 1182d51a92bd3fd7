"""Prompts by FastChat's rules. tests/compat compares every style with the real renderer."""

import pytest

from dev_opsgpt.gateway.fastchat_prompt import STYLES, render
from dev_opsgpt.protocol.errors import UpstreamFailed
from dev_opsgpt.protocol.fastchat import Conversation

TURNS: list[tuple[str, str | None]] = [("USER", "Hi"), ("AI", "Hello"), ("USER", "Bye")]


def conversation(style: int, **fields: object) -> Conversation:
    values = {
        "name": "x",
        "system_message": "S",
        "messages": [*TURNS, ("AI", None)],
        "roles": ("USER", "AI"),
        "sep_style": style,
        "sep": "|",
        "sep2": "#",
    }
    return Conversation(**values | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("style", "prompt"),
    [
        (1, "S|USER: Hi|AI: Hello|USER: Bye|AI:"),
        (2, "S|USER: Hi|AI: Hello#USER: Bye|AI:"),
        (4, "SUSERHi|AIHello|USERBye|AI"),
        (7, "SHi AI Hello#USER Bye|AI"),
        (8, "S|[Round 0]|USER：Hi|AI：Hello|[Round 1]|USER：Bye|AI："),
        (9, "S|\nUSER\nHi|\nAI\nHello|\nUSER\nBye|\nAI\n"),
        (19, "S#Hi<n>Hello<n>Bye|"),
    ],
)
def test_styles(style: int, prompt: str) -> None:
    assert render(conversation(style)) == prompt


def test_all_of_0_2_36_are_there() -> None:
    assert sorted(STYLES) == list(range(1, 20))


def test_an_unknown_style_is_the_workers_fault() -> None:
    with pytest.raises(UpstreamFailed):
        render(conversation(20))


@pytest.mark.parametrize(
    ("template", "system"),
    [
        ("<{system_message}>", "<{S}>"),
        ("{{{system_message}}}", "{{S}}"),
        ("{{system_message}}", "{system_message}"),
        ("{system_message.__class__}{0}", "{system_message.__class__}{0}"),
    ],
)
def test_the_template_is_no_format_string(template: str, system: str) -> None:
    found = conversation(4, system_template=template, system_message="{S}", messages=[])
    assert render(found) == system
