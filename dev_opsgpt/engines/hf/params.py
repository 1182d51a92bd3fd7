"""What a request asks of sampling, with the defaults of the model where it asks for nothing.

The request goes first, then the model's ``default_params`` in our configuration, then the
``generation_config.json`` that came with the model, as vLLM does by default; then OpenAI's own:
temperature 1, everything else off.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError

from dev_opsgpt.engines.hf.sequence import Sampling
from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, Generation
from dev_opsgpt.worker.engine import EngineError

_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
)
_OF_MODEL = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_OTHER = ("max_tokens", "stop", "chat_template_kwargs")
# A seed has 63 bits here; one more and it is 0 again.
_SEEDS = 2**63


class Defaults(msgspec.Struct, frozen=True):
    """What holds for requests that do not say. ``sampling`` are fields of ``Sampling``."""

    sampling: Mapping[str, Any] = {}
    max_tokens: int | None = None
    stops: list[str] = []
    template: Mapping[str, Any] = {}


def defaults_of(given: Mapping[str, Any], generation_config: Any) -> Defaults:
    """A model's ``default_params`` over its generation configuration.

    Raises ``EngineError`` for names that nobody knows and for values out of range.
    """
    found = dict(given)
    if "max_completion_tokens" in found:
        found["max_tokens"] = found.pop("max_completion_tokens")
    unknown = sorted(set(found) - set(_SAMPLING) - set(_OTHER))
    if unknown:
        raise EngineError(f"default_params has fields that transformers does not know: {unknown}.")
    checked = _checked(found)
    of_model = {name: getattr(generation_config, name, None) for name in _OF_MODEL}
    own = {name: value for name, value in of_model.items() if value is not None}
    asked = {name: getattr(checked, name) for name in _SAMPLING if name in found}
    limit = checked.limit or getattr(generation_config, "max_new_tokens", None)
    return Defaults(own | asked, limit, checked.stops, checked.chat_template_kwargs or {})


def _checked(given: Mapping[str, Any]) -> ChatRequest:
    message = {"role": "user", "content": ""}
    try:
        return ChatRequest.model_validate({"model": "-", "messages": [message], **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(step) for step in first["loc"])
        raise EngineError(f"default_params has a wrong value: {name}: {first['msg']}.") from None


def sampling(
    request: ChatRequest | CompletionRequest,
    defaults: Defaults,
    *,
    index: int,
    room: int,
    vocabulary: int,
    end_tokens: frozenset[int],
) -> Sampling:
    """How to choose the tokens of sequence ``index``, ``room`` of them at most.

    Raises ``InvalidRequest`` for a ``logit_bias`` or ``stop_token_ids`` of tokens that there are
    not.
    """
    asked = {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
    found = {**defaults.sampling, **asked}
    if "seed" in found:
        found["seed"] = (found["seed"] + index) % _SEEDS
    # "Off" is -1 at vLLM and 0 here.
    found["top_k"] = max(0, found.get("top_k", 0))
    limit = limit_of(request)
    limit = defaults.max_tokens if limit is None else limit
    return Sampling(
        max_tokens=room if limit is None else min(limit, room),
        logit_bias=_biases(request.logit_bias or {}, vocabulary),
        logprobs=wanted_logprobs(request),
        end_tokens=end_tokens | _stop_tokens(request, vocabulary),
        **found,
    )


def _stop_tokens(request: Generation, vocabulary: int) -> set[int]:
    check_tokens(request.stop_token_ids or [], vocabulary, "stop_token_ids")
    return set(request.stop_token_ids or [])


def stops_of(request: Generation, defaults: Defaults) -> list[str]:
    """The stop strings: the request's, else the model's."""
    return defaults.stops if request.stop is None else request.stops


def limit_of(request: ChatRequest | CompletionRequest) -> int | None:
    """The most tokens of the answer, if the request says."""
    return request.limit if isinstance(request, ChatRequest) else request.max_tokens


def wanted_logprobs(request: ChatRequest | CompletionRequest) -> int | None:
    """How many of the likeliest tokens to show at each place; None without log probabilities."""
    if isinstance(request, ChatRequest):
        return (request.top_logprobs or 0) if request.logprobs else None
    return request.logprobs


def _biases(given: Mapping[str, float], vocabulary: int) -> dict[int, float]:
    for token in given:
        if int(token) >= vocabulary:
            raise InvalidRequest(
                f"'logit_bias' names the token {token}; the model has {vocabulary} tokens.",
                param="logit_bias",
            )
    return {int(token): bias for token, bias in given.items()}


def check_completion(request: CompletionRequest) -> None:
    """Raises ``Unsupported`` for what this engine cannot do, naming the field."""
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
    """Raises ``Unsupported`` for what this engine cannot do, naming the field."""
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
