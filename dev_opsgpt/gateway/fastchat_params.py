"""OpenAI's requests -> what FastChat's workers take: a conversation to render, and parameters.

Pure. What their protocol has no word for is refused by name, never dropped.
"""

from typing import Any

import msgspec

from dev_opsgpt.protocol.errors import OutOfRange, Unsupported
from dev_opsgpt.protocol.fastchat import Conversation
from dev_opsgpt.protocol.openai import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Generation,
    ImagePart,
    Message,
    RefusalPart,
    TextPart,
)

# FastChat's gateway's own, so that a model behaves here as it does there.
TEMPERATURE = 0.7
COMPLETION_TOKENS = 16
IMAGE_MARK = "$$<image>$$"


def check_chat(request: ChatRequest) -> None:
    """Refuses what a FastChat worker cannot be asked. Raises ``Unsupported``."""
    _check(request)
    if request.tools and request.tool_choice != "none":
        raise _unsupported("tools")
    if request.response_format is not None and request.response_format.type != "text":
        raise _unsupported("response_format")
    if request.modalities and "audio" in request.modalities:
        raise _unsupported("modalities")


def check_completion(request: CompletionRequest) -> None:
    """Refuses what a FastChat worker cannot be asked. Raises ``Unsupported``, ``OutOfRange``."""
    _check(request)
    if request.suffix:
        raise _unsupported("suffix")
    if request.best_of is not None and request.best_of != request.choices:
        raise Unsupported("best_of is supported only where it equals n.", param="best_of")
    if request.echo and request.logprobs is not None:
        raise Unsupported("echo together with logprobs is not supported.", param="echo")
    if request.max_tokens == 0:
        raise OutOfRange("This model makes one token at least.", param="max_tokens")
    if not all(isinstance(prompt, str) for prompt in request.prompts):
        raise Unsupported("This model takes prompts as text, not as token ids.", param="prompt")


def check_embedding(request: EmbeddingRequest) -> None:
    """Refuses what a FastChat worker cannot be asked. Raises ``Unsupported``."""
    if request.dimensions is not None:
        raise _unsupported("dimensions")
    if request.prompt_name is not None:
        raise _unsupported("prompt_name")
    if not all(isinstance(text, str) for text in request.inputs):
        raise Unsupported("This model takes input as text, not as token ids.", param="input")


def _check(request: Generation) -> None:
    for name in ("logit_bias", "seed", "min_p"):
        if getattr(request, name) not in (None, {}):
            raise _unsupported(name)


def _unsupported(name: str) -> Unsupported:
    message = f"This model's worker speaks FastChat's protocol, which has no '{name}'."
    return Unsupported(message, param=name)


def conversation(
    template: Conversation, messages: list[Message], *, multimodal: bool
) -> tuple[Conversation, list[str]]:
    """The template filled with the messages and open for the answer, and the images' URLs.

    FastChat has one system message, at the head: where the client sent several they are joined.
    Raises ``Unsupported`` for roles and parts that cannot be said.
    """
    system: list[str] = []
    turns = list(template.messages)
    images: list[str] = []
    for number, message in enumerate(messages):
        text, found = _text(message, f"messages.{number}", multimodal=multimodal)
        if message.role in ("system", "developer"):
            system.append(text)
            continue
        speaker = template.roles[0 if message.role == "user" else 1]
        turns.append((speaker, IMAGE_MARK * len(found) + text))
        images += found
    turns.append((template.roles[1], None))
    head = "\n\n".join(system) if system else template.system_message
    return msgspec.structs.replace(template, system_message=head, messages=turns), images


def _text(message: Message, where: str, *, multimodal: bool) -> tuple[str, list[str]]:
    if message.role in ("tool", "function"):
        raise Unsupported(
            f"This model's worker knows no role '{message.role}'.", param=f"{where}.role"
        )
    if message.tool_calls:
        raise Unsupported("This model's worker knows no tools.", param=f"{where}.tool_calls")
    images: list[str] = []
    for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if isinstance(part, TextPart | RefusalPart):
            continue
        param = f"{where}.content.{place}"
        if not (multimodal and isinstance(part, ImagePart) and message.role == "user"):
            raise Unsupported(f"This model takes no part of type '{part.type}'.", param=param)
        if not part.image_url.url.startswith("data:"):
            # A FastChat worker would fetch any address, and open files of its own machine.
            raise Unsupported("Images are taken as data: URLs only.", param=f"{param}.image_url")
        images.append(part.image_url.url)
    return message.text(), images


def chat_params(
    request: ChatRequest, template: Conversation, model: str, prompt: str, images: list[str]
) -> dict[str, Any]:
    """The parameters for one answer, but for ``max_new_tokens``."""
    top = max(1, request.top_logprobs or 0) if request.logprobs else None
    found = _params(request, template) | {"model": model, "prompt": prompt, "logprobs": top}
    return found | {"images": images} if images else found


def completion_params(
    request: CompletionRequest, template: Conversation, model: str, prompt: str
) -> dict[str, Any]:
    """The parameters for one prompt, but for ``max_new_tokens``."""
    found = _params(request, template)
    return found | {"model": model, "prompt": prompt, "logprobs": request.logprobs}


def _params(request: Generation, template: Conversation) -> dict[str, Any]:
    """All that FastChat's gateway sends: some workers fail where one is missing."""
    own = template.stop_str or []
    stops = [*request.stops, *([own] if isinstance(own, str) else own)]
    found: dict[str, Any] = {
        "temperature": TEMPERATURE if request.temperature is None else request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "top_k": request.top_k or -1,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "echo": False,
        "stop": list(dict.fromkeys(stop for stop in stops if stop)),
        "stop_token_ids": template.stop_token_ids,
    }
    if request.repetition_penalty is not None:
        found["repetition_penalty"] = request.repetition_penalty
    return found
