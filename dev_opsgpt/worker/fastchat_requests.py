"""FastChat's generation parameters -> OpenAI's requests. Pure."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from dev_opsgpt.protocol.errors import InvalidRequest, OutOfRange, Unsupported
from dev_opsgpt.protocol.fastchat import GenerateRequest
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, Message

Request = TypeVar("Request", ChatRequest, CompletionRequest)

Ends = Callable[[list[int]], list[int]]

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


def _common(request: GenerateRequest, model: str, ends: Ends | None) -> dict[str, Any]:
    """What both kinds share.

    Of ``stop_token_ids`` those are kept that ``ends`` gives back, none by default: FastChat's
    clients take them from the template that goes with a model's name, whoever serves it, so that
    an engine which cannot end there must not fail over them.
    """
    if request.use_beam_search or (request.best_of or 1) > 1:
        raise Unsupported("Beam search is not supported.", param="use_beam_search")
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    found = {name: _given(request, name) for name in _SAME}
    # FastChat sends the stop strings of the conversation along with the client's, empty ones too.
    stops = [text for text in stop if text] or None
    found |= {"model": model, "stop": stops, "max_tokens": _given(request, "max_new_tokens")}
    if ends is not None and request.stop_token_ids:
        found["stop_token_ids"] = ends(request.stop_token_ids) or None
    return found


def chat_request(
    request: GenerateRequest, model: str, messages: list[Message], ends: Ends | None = None
) -> ChatRequest:
    """The chat request that FastChat's gateway was asked, from what it asks of the worker.
    ``ends`` tells which of some token ids an answer can end at.

    Raises ``InvalidRequest``.
    """
    top = request.logprobs
    fields = _common(request, model, ends) | {
        "messages": messages,
        "logprobs": top is not None,
        "top_logprobs": top,
    }
    return _validated(ChatRequest, fields)


def completion_request(
    request: GenerateRequest, model: str, ends: Ends | None = None
) -> CompletionRequest:
    """The completion request for a plain prompt, as ``chat_request``. Raises ``InvalidRequest``."""
    if request.images:
        raise Unsupported(
            "Images go with messages, in a prompt of this worker's own template.", param="images"
        )
    fields = _common(request, model, ends) | {
        "prompt": request.prompt,
        "logprobs": request.logprobs,
    }
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
