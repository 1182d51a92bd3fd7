"""What local engines have in common in reading a request: what none of them can do, token ids that
there are not, and what is said of an answer's length and log probabilities."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, Generation
from dev_opsgpt.worker.engine import EngineError


def checked_params(given: Mapping[str, Any]) -> ChatRequest:
    """A model's ``default_params`` as a request that sets nothing else. Raises ``EngineError`` for
    a value that no request may have; names that are unknown are passed over."""
    message = {"role": "user", "content": ""}
    try:
        return ChatRequest.model_validate({"model": "-", "messages": [message], **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(step) for step in first["loc"])
        raise EngineError(f"default_params has a wrong value: {name}: {first['msg']}.") from None


def limit_of(request: Generation) -> int | None:
    """The most tokens of the answer, if the request says."""
    if isinstance(request, ChatRequest):
        return request.limit
    return request.max_tokens if isinstance(request, CompletionRequest) else None


def wanted_logprobs(request: ChatRequest | CompletionRequest) -> int | None:
    """How many of the likeliest tokens to show at each place; None without log probabilities."""
    if isinstance(request, ChatRequest):
        return (request.top_logprobs or 0) if request.logprobs else None
    return request.logprobs


def biases_of(request: Generation, vocabulary: int) -> dict[int, float]:
    """``logit_bias`` by token id. Raises ``InvalidRequest`` for a token that there is not."""
    given: Mapping[str, float] = request.logit_bias or {}
    for token in given:
        if int(token) >= vocabulary:
            raise InvalidRequest(
                f"'logit_bias' names the token {token}; the model has {vocabulary} tokens.",
                param="logit_bias",
            )
    return {int(token): bias for token, bias in given.items()}


def check_completion(request: CompletionRequest) -> None:
    """Raises ``Unsupported`` for what no local engine can do, naming the field."""
    if request.suffix:
        raise Unsupported("This model does not fill in text before a 'suffix'.", param="suffix")
    if request.best_of is not None and request.best_of != request.choices:
        raise Unsupported("'best_of' must be equal to 'n' with this model.", param="best_of")
    if request.echo and request.logprobs is not None:
        raise Unsupported(
            "This model gives no log probabilities of a prompt: leave out 'echo' or 'logprobs'.",
            param="logprobs",
        )


def check_chat(request: ChatRequest) -> None:
    """Raises ``Unsupported`` for what no local engine can do, naming the field."""
    if request.modalities and "audio" in request.modalities:
        raise Unsupported("This model answers in text only.", param="modalities")


def check_tokens(ids: list[int], vocabulary: int, param: str) -> None:
    """Raises ``InvalidRequest`` for a token id that the model does not have."""
    for place, token in enumerate(ids):
        if not 0 <= token < vocabulary:
            raise InvalidRequest(
                f"'{param}' holds the token id {token} at place {place}; "
                f"the model has {vocabulary} tokens.",
                param=param,
            )
