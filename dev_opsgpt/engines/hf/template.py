"""A model's own chat template: messages and tools -> the text of the prompt.

A model that has none gets one of two: ChatML where its tokenizer has ChatML's marks, else lines
that begin with ``User:`` and ``Assistant:``, as a base model may have seen them. Where a template
does not know of tools they are written out as text.
"""

from collections.abc import Iterator
from typing import Any

from dev_opsgpt.engines.hf.messages import messages_of
from dev_opsgpt.engines.hf.template_calls import (
    ASKED,
    PROBED,
    TOOL,
    CallStyle,
    Messages,
    call_style,
    one_call_each,
)
from dev_opsgpt.engines.hf.tool_text import Tools, described, introduced, written_out
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


class ChatTemplate:
    """The template of a tokenizer. Its methods may be called from one thread at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._own = _own_template(tokenizer)
        names = {str(token) for token in tokenizer.get_added_vocab()}
        self._default = CHATML if "<|im_start|>" in names else LINES
        text = self._default if self._own is None else self._own
        self.shows_tools = "tools" in text and self._tools_are_shown()
        self._shows_calls = self.shows_tools or "tool_calls" in text
        form = form_of(text, names)
        self.form = form if self.shows_tools or (self._shows_calls and form.example) else HERMES
        self.stops = [LINES_STOP] if text == LINES else []
        self._calls = self._style() if self._shows_calls else CallStyle(shown=False, results=False)

    def render(self, request: ChatRequest, options: dict[str, Any]) -> str:
        """The prompt, ending where the answer begins. ``options`` are further variables of the
        template. Raises ``InvalidRequest`` at ``messages`` for what the template refuses."""
        for name in options:
            if name in _OWN:
                raise InvalidRequest(
                    f"'chat_template_kwargs' cannot set '{name}'.",
                    param=f"chat_template_kwargs.{name}",
                )
        calls = self._calls
        messages = messages_of(request, objects=calls.objects, short_ids=self.form.short_ids)
        tools = tools_of(request)
        if not calls.shown:
            form = self.form if self.form.call else HERMES
            messages = written_out(messages, form, results=not calls.results)
        elif calls.alone:
            messages = one_call_each(messages)
        if tools and not self.shows_tools:
            messages, tools = introduced(messages, tools, self.form.example), []
        return self._rendered(messages, tools, options)

    def _rendered(self, messages: Messages, tools: Tools, options: dict[str, Any]) -> str:
        """The prompt. Some templates fail over what other templates, and OpenAI, let be left out,
        or have no place for: they get it in full, or without. If all fails, what the template said
        first is what is wrong."""
        reason = ""
        for attempt in _attempts(messages, tools):
            try:
                return self._render(*attempt, options)
            except ApiError:
                raise
            except Exception as error:  # a template is a program, and may fail in any way
                said = str(error).strip().partition("\n")[0][:_LONGEST_REASON]
                reason = reason or said or type(error).__name__
        raise InvalidRequest(
            f"The model's chat template does not take these messages: {reason}", param="messages"
        )

    def _render(self, messages: Messages, tools: Tools | None, options: dict[str, Any]) -> str:
        found = self._tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=self._default if self._own is None else None,
            add_generation_prompt=True,
            tokenize=False,
            **options,
        )
        return str(found)

    def _tools_are_shown(self) -> bool:
        """Whether a tool is in the prompt, or may be: some templates want more for it than a
        question. Others name tools, and look for them where no client puts them."""
        try:
            return PROBED in self._render([ASKED], [TOOL], {})
        except Exception:
            return True

    def _style(self) -> CallStyle:
        return call_style(lambda messages, tools: self._render(messages, tools, {}))


def _attempts(messages: Messages, tools: Tools) -> Iterator[tuple[Messages, Tools | None]]:
    """The messages and tools, from as they are to the easiest to take."""
    yield messages, tools or None
    easier = [described(tool) for tool in tools]
    yield messages, easier
    bare = [{k: v for k, v in one.items() if k != "reasoning_content"} for one in messages]
    if bare != messages:
        yield bare, easier


def _own_template(tokenizer: Any) -> str | None:
    """The template itself; of several the one for tools, which is a superset of the default."""
    given = getattr(tokenizer, "chat_template", None)
    if isinstance(given, dict):
        return str(given.get("tool_use") or given.get("default") or "") or None
    return given or None
