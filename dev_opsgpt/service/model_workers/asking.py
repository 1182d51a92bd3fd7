"""OpenAI's requests -> what ``do_chat``, ``do_completion`` and ``do_embeddings`` are asked. Pure.

What would change the meaning of the answer and is not in the class's ``supports`` is refused by
the name of its field. Sampling wishes (penalties, ``top_k``, ``seed`` …) are passed on as they
are; whether a provider knows them is its own affair.
"""

from collections.abc import Collection
from typing import Any

from dev_opsgpt.protocol.errors import Unsupported
from dev_opsgpt.protocol.openai import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Generation,
    Message,
    TextPart,
)

# Fields that are passed under another name, or are answered before a provider is called.
_OURS = {
    "model",
    "messages",
    "prompt",
    "n",
    "best_of",
    "echo",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
    "modalities",
    "stop",
}


def chat(request: ChatRequest, supports: Collection[str], index: int = 0) -> dict[str, Any]:
    """The fields of ``ApiChatParams``. Raises ``Unsupported``."""
    tools = bool(request.tools) and request.tool_choice != "none"
    form = request.response_format is not None and request.response_format.type != "text"
    if tools:
        _demand("tools", supports)
    if form:
        _demand("response_format", supports)
    asked = _generation(request, supports, index) | {"messages": _messages(request, supports)}
    if request.limit is not None:
        asked["max_tokens"] = request.limit
    for name, wanted in (("tools", tools), ("tool_choice", tools), ("response_format", form)):
        if not wanted:
            asked.pop(name, None)
    return asked


def completion(
    request: CompletionRequest, prompt: str | list[int], supports: Collection[str], index: int = 0
) -> dict[str, Any]:
    """The fields of ``ApiCompletionParams``. Raises ``Unsupported``."""
    if not isinstance(prompt, str):
        raise Unsupported("This model takes prompts as text only.", param="prompt")
    asked = _generation(request, supports, index) | {"prompt": prompt}
    if request.max_tokens is not None:
        asked["max_tokens"] = request.max_tokens
    return asked


def embeddings(request: EmbeddingRequest, supports: Collection[str]) -> dict[str, Any]:
    """The fields of ``ApiEmbeddingsParams``. Raises ``Unsupported``."""
    texts = [text for text in request.inputs if isinstance(text, str)]
    if len(texts) != len(request.inputs):
        raise Unsupported("This model embeds texts only, not token ids.", param="input")
    if request.prompt_name is not None:
        raise Unsupported("This model has no prompts of its own.", param="prompt_name")
    if request.dimensions is None:
        return {"texts": texts}
    _demand("dimensions", supports)
    return {"texts": texts, "dimensions": request.dimensions}


def _generation(request: Generation, supports: Collection[str], index: int) -> dict[str, Any]:
    if getattr(request, "logprobs", None) not in (None, False):
        raise Unsupported("This model's provider gives no logprobs.", param="logprobs")
    if request.logit_bias:
        _demand("logit_bias", supports)
    found = request.model_dump(exclude_unset=True, exclude_none=True, by_alias=True, exclude=_OURS)
    if request.stops:
        found["stop"] = request.stops
    if request.seed is not None:
        found["seed"] = request.seed + index
    return found


def _demand(field: str, supports: Collection[str]) -> None:
    if field not in supports:
        raise Unsupported(f"This model's provider does not support {field}.", param=field)


def _messages(request: ChatRequest, supports: Collection[str]) -> list[dict[str, Any]]:
    """The messages as the client sent them; a list of text parts becomes the text it is, for a
    provider that takes nothing but text."""
    found = []
    for index, message in enumerate(request.messages):
        one = message.model_dump(exclude_unset=True, by_alias=True)
        if (message.tool_calls or message.role in ("tool", "function")) and (
            "tools" not in supports
        ):
            problem = "This model's provider does not support tool calls in messages."
            raise Unsupported(problem, param=f"messages.{index}")
        if isinstance(message.content, list) and "content_parts" not in supports:
            one["content"] = _text(message, index)
        found.append(one)
    return found


def _text(message: Message, index: int) -> str:
    for part, content in enumerate(message.content or ()):
        if not isinstance(content, TextPart):
            raise Unsupported(
                "This model's provider takes text only.",
                param=f"messages.{index}.content.{part}",
            )
    return message.text()
