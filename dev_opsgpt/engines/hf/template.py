"""A model's own chat template: messages and tools -> the text of the prompt.

A model that has none gets one of two: ChatML where its tokenizer has ChatML's marks, else lines
that begin with ``User:`` and ``Assistant:``, as a base model may have seen them. Where a template
does not know of tools they are written out as text.
"""

from typing import Any

from dev_opsgpt.engines.hf.messages import messages_of
from dev_opsgpt.engines.hf.tool_text import introduced, written_out
from dev_opsgpt.engines.template_messages import tools_of
from dev_opsgpt.engines.text_formats.choose import form_of
from dev_opsgpt.engines.text_formats.hermes import HERMES
from dev_opsgpt.protocol.errors import ApiError, InvalidRequest
from dev_opsgpt.protocol.openai import ChatRequest

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
LINES = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{- message.content + '\\n\\n' -}}"
    "{%- else -%}{{- message.role | capitalize + ': ' + message.content + '\\n\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)
LINES_STOP = "\nUser:"
"""What a model under ``LINES`` writes when it goes on in the user's place."""

_LONGEST_REASON = 300
# What the renderer itself is told; a client's values must not stand in their place.
_OWN = frozenset(
    (
        *("messages", "conversation", "conversations", "tools", "documents", "chat_template"),
        *("add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation"),
        *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        *("tokenizer_kwargs", "sanitize_control_tokens"),
    )
)
_PROBE = {"role": "user", "content": "x"}


class ChatTemplate:
    """The template of a tokenizer. Its methods may be called from one thread at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._own = _own_template(tokenizer)
        names = {str(token) for token in tokenizer.get_added_vocab()}
        self._default = CHATML if "<|im_start|>" in names else LINES
        text = self._default if self._own is None else self._own
        self.shows_tools = "tools" in text
        self._shows_calls = self.shows_tools or "tool_calls" in text
        form = form_of(text, names)
        self.form = form if self.shows_tools or (self._shows_calls and form.example) else HERMES
        self.stops = [LINES_STOP] if text == LINES else []
        self._objects = self._takes_objects() if self._shows_calls else True

    def render(self, request: ChatRequest, options: dict[str, Any]) -> str:
        """The prompt, ending where the answer begins. ``options`` are further variables of the
        template. Raises ``InvalidRequest`` at ``messages`` for what the template refuses."""
        for name in options:
            if name in _OWN:
                raise InvalidRequest(
                    f"'chat_template_kwargs' cannot set '{name}'.",
                    param=f"chat_template_kwargs.{name}",
                )
        messages = messages_of(request, objects=self._objects, short_ids=self.form.short_ids)
        tools = tools_of(request)
        if not self._shows_calls:
            messages = written_out(messages)
        if tools and not self.shows_tools:
            messages, tools = introduced(messages, tools, self.form.example), []
        try:
            return self._render(messages, tools, options)
        except ApiError:
            raise
        except Exception as error:  # a template is a program, and may fail in any way
            reason = str(error).strip().partition("\n")[0][:_LONGEST_REASON]
            raise InvalidRequest(
                f"The model's chat template does not take these messages: "
                f"{reason or type(error).__name__}",
                param="messages",
            ) from None

    def _render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], options: dict[str, Any]
    ) -> str:
        found = self._tokenizer.apply_chat_template(
            messages,
            tools=tools or None,
            chat_template=self._default if self._own is None else None,
            add_generation_prompt=True,
            tokenize=False,
            **options,
        )
        return str(found)

    def _takes_objects(self) -> bool:
        """Whether the arguments of a call are to be given as an object: then the template writes
        them as JSON. Given as text they would be quoted once more, or the other way round fail."""
        function = {"name": "f", "arguments": {"needle": 1}}
        call = {"id": "123456789", "type": "function", "function": function}
        said = {"role": "assistant", "content": "", "tool_calls": [call]}
        told = {"role": "tool", "tool_call_id": "123456789", "name": "f", "content": "x"}
        tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}
        try:
            text = self._render([_PROBE, said, told], [tool], {})
        except Exception:
            return False
        return '"needle": 1' in text or '"needle":1' in text


def _own_template(tokenizer: Any) -> str | None:
    """The template itself; of several the one for tools, which is a superset of the default."""
    given = getattr(tokenizer, "chat_template", None)
    if isinstance(given, dict):
        return str(given.get("tool_use") or given.get("default") or "") or None
    return given or None
