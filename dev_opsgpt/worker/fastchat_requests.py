"""FastChat's generation parameters -> OpenAI's requests. Pure."""

from typing import Any, TypeVar

from pydantic import ValidationError

from dev_opsgpt.protocol.errors import InvalidRequest, OutOfRange, Unsupported
from dev_opsgpt.protocol.fastchat import GenerateRequest
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, Message

Request = TypeVar("Request", ChatRequest, CompletionRequest)

_SAME = (
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
_DEFAULTS = GenerateRequest(prompt="")
_RANGE = ("less_than", "greater_than", "less_than_equal", "greater_than_equal")


def _given(request: GenerateRequest, name: str) -> Any:
    """A parameter, or FastChat's default where it is null."""
    value = getattr(request, name)
    return getattr(_DEFAULTS, name) if value is None else value


def _common(request: GenerateRequest, model: str) -> dict[str, Any]:
    """What both kinds share.

    ``stop_token_ids`` are left out: FastChat's clients take them from the template that goes with
    a model's name, where they are the model's own end tokens, and those end an answer anyway.
    """
    if request.use_beam_search or (request.best_of or 1) > 1:
        raise Unsupported("Beam search is not supported.", param="use_beam_search")
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    found = {name: _given(request, name) for name in _SAME}
    # FastChat sends the stop strings of the conversation along with the client's, empty ones too.
    stops = [text for text in stop if text] or None
    return found | {"model": model, "stop": stops, "max_tokens": _given(request, "max_new_tokens")}


def chat_request(request: GenerateRequest, model: str, messages: list[Message]) -> ChatRequest:
    """The chat request that FastChat's gateway was asked, from what it asks of the worker.

    Raises ``InvalidRequest``.
    """
    top = request.logprobs
    fields = _common(request, model) | {
        "messages": messages,
        "logprobs": top is not None,
        "top_logprobs": top,
    }
    return _validated(ChatRequest, fields)


def completion_request(request: GenerateRequest, model: str) -> CompletionRequest:
    """The completion request for a plain prompt. Raises ``InvalidRequest``."""
    if request.images:
        raise Unsupported(
            "Images go with messages, in a prompt of this worker's own template.", param="images"
        )
    fields = _common(request, model) | {"prompt": request.prompt, "logprobs": request.logprobs}
    return _validated(CompletionRequest, fields)


def _validated(type_: type[Request], fields: dict[str, Any]) -> Request:
    try:
        return type_.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "body"
        name = "max_new_tokens" if name == "max_tokens" else name
        kind = OutOfRange if first["type"] in _RANGE else InvalidRequest
        raise kind(f"'{name}': {first['msg']}", param=name) from None
