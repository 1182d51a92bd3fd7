"""Our renderer against fschat's own, and our template through fschat's renderer and back."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from dev_opsgpt.gateway.fastchat_prompt import STYLES, render
from dev_opsgpt.protocol.fastchat import Conversation
from dev_opsgpt.worker.conversation import IMAGE_MARK, MarkedConversation
from tests.compat.fschat_env import Environment

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("fschat_render.py")
CASES = 300
PIECES = [
    "a",
    "é",
    "中",
    "\n",
    "\r\n",
    "\n\n",
    "<n>",
    "n>",
    " ",
    "{",
    "}",
    ":",
    "： ",
    "</s>",
    "\\",
]
MARK_PIECES = [*PIECES, "\x02", "\x03", "\x04", "user:", "\x02user:12\x03", IMAGE_MARK]


def by_fschat(light: Environment, conversations: Sequence[dict[str, Any]]) -> list[str]:
    done = subprocess.run(
        [str(light.python), str(SCRIPT)],
        input="".join(json.dumps(one) + "\n" for one in conversations).encode(),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def text(rng: Random, pieces: Sequence[str] = PIECES) -> str:
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(6)))


def random_conversation(rng: Random, style: int) -> Conversation:
    roles = (text(rng) + "U", text(rng) + "A")
    count = rng.randrange(6)
    return Conversation(
        name=rng.choice(["x", "chatglm2"]),
        system_template=rng.choice(["{system_message}", "<{system_message}> {{}}", "", "fixed"]),
        system_message=text(rng),
        roles=roles,
        messages=[(rng.choice(roles), rng.choice([None, text(rng)])) for _ in range(count)],
        sep_style=style,
        sep=text(rng),
        sep2=text(rng),
    )


def test_every_style_is_rendered_as_fschat_does(light: Environment) -> None:
    rng = Random(0)
    ours = [random_conversation(rng, style) for style in STYLES for _ in range(CASES)]
    theirs = by_fschat(light, [msgspec.to_builtins(one) for one in ours])
    for conversation, prompt in zip(ours, theirs, strict=True):
        assert render(conversation) == prompt, conversation


def marked_case(rng: Random) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Random messages, and the conversation that fschat's gateway makes of them."""
    fields = msgspec.to_builtins(MarkedConversation("secret").template("x"))
    fields["system_message"] = text(rng, MARK_PIECES)
    expected = [("system", fields["system_message"])] if fields["system_message"] else []
    for _ in range(1 + rng.randrange(5)):
        place = rng.randrange(2)
        said = text(rng, MARK_PIECES)
        expected.append((("user", "assistant")[place], said))
        parts = place == 0 and rng.random() < 0.3
        fields["messages"].append((fields["roles"][place], [said, []] if parts else said))
    fields["messages"].append((fields["roles"][1], None))
    return expected, fields


def test_our_template_brings_messages_through_fschat_unharmed(light: Environment) -> None:
    rng = Random(1)
    cases = [marked_case(rng) for _ in range(3000)]
    prompts = by_fschat(light, [fields for _, fields in cases])
    for (expected, _), prompt in zip(cases, prompts, strict=True):
        found = MarkedConversation("secret").messages(prompt)
        assert found is not None
        assert [(message.role, message.content) for message in found] == expected


def test_images_come_through_fschat(light: Environment) -> None:
    marked = MarkedConversation("secret")
    fields = msgspec.to_builtins(marked.template("x"))
    user, assistant = fields["roles"]
    fields["messages"] = [(user, ["what?", ["data:1", "data:2"]]), (assistant, None)]
    found = marked.messages(by_fschat(light, [fields])[0], ["data:1", "data:2"])
    assert found is not None
    assert [getattr(part, "type", None) for part in found[0].content or ()] == [
        "image_url",
        "image_url",
        "text",
    ]
    assert found[0].text() == "what?"
