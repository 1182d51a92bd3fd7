"""Dialogues as text: the chat template, rendered the way transformers renders it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tiny_chat.corpus.dialogue import Dialogue

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
# Plain text to a client, but one token each, so that a call starts with one decision.
TOOL_MARKS = (
    "<tools>",
    "</tools>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
TEMPLATE_PATH = Path(__file__).with_name("chat_template.jinja")


def template_text() -> str:
    """The chat template as it goes into the model folder and the GGUF file."""
    return TEMPLATE_PATH.read_text("utf-8").rstrip("\n")


class ChatFormat:
    """Renders messages with the template; the same text as `apply_chat_template`."""

    def __init__(self) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        # transformers' tojson: no HTML escapes, no sorting, Chinese left readable.
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self._template: jinja2.Template = environment.from_string(template_text())

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        *,
        ask: bool = False,
    ) -> str:
        """One conversation as text; with `ask`, up to where the assistant would speak."""
        return self._template.render(
            messages=list(messages), tools=list(tools) or None, add_generation_prompt=ask
        )

    def example(self, dialogue: Dialogue) -> str:
        """A whole dialogue as one training example."""
        return self.render(dialogue.messages, dialogue.tools)
