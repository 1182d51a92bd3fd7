"""What a request asks of sampling, in llama.cpp's words."""

from collections.abc import Mapping
from typing import Any

from dev_opsgpt.protocol.errors import InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, Generation
from dev_opsgpt.worker.engine import EngineError

DEFAULTS: Mapping[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.95,
    "top_k": 40,
    "min_p": 0.05,
    "repeat_penalty": 1.0,
}
# Fields of llama.cpp's own that a model's ``default_params`` may set besides those of requests.
_OWN = {
    "dry_allowed_length",
    "dry_base",
    "dry_multiplier",
    "dry_penalty_last_n",
    "dynatemp_exponent",
    "dynatemp_range",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "repeat_last_n",
    "repeat_penalty",
    "samplers",
    "top_n_sigma",
    "typical_p",
    "xtc_probability",
    "xtc_threshold",
}
_SAME = {
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "max_tokens",
}
# llama.cpp's seeds have 32 bits, and the last of them means "random".
_SEEDS = 2**32 - 1


def checked_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """A model's ``default_params`` over ``DEFAULTS``. Raises ``EngineError`` for unknown names."""
    found = dict(given)
    if "repetition_penalty" in found:
        found["repeat_penalty"] = found.pop("repetition_penalty")
    if "max_completion_tokens" in found:
        found["max_tokens"] = found.pop("max_completion_tokens")
    unknown = sorted(set(found) - _SAME - _OWN)
    if unknown:
        raise EngineError(f"default_params has fields that llama.cpp does not know: {unknown}.")
    return {**DEFAULTS, **found}


def stops_of(request: Generation, defaults: Mapping[str, Any]) -> list[str]:
    """The stop strings: the request's, else the model's."""
    if request.stop is not None:
        return request.stops
    default = defaults.get("stop") or []
    return [default] if isinstance(default, str) else list(default)


def sampling(
    request: Generation, defaults: Mapping[str, Any], *, index: int, vocabulary: int
) -> dict[str, Any]:
    """The fields of llama.cpp's request that say how to choose tokens and how many.

    Stop strings are not among them: llama.cpp loses text that it holds back for one when the
    answer ends, so they are our own work. Raises ``InvalidRequest`` for unknown token ids.
    """
    asked = {
        name: value
        for name in _SAME - {"stop", "max_tokens"}
        if (value := getattr(request, name)) is not None
    }
    if request.repetition_penalty is not None:
        asked["repeat_penalty"] = request.repetition_penalty
    limit = _limit(request)
    if limit is not None:
        asked["max_tokens"] = limit
    found = {**defaults, **asked}
    found.pop("stop", None)
    if "seed" in found:
        found["seed"] = (found["seed"] + index) % _SEEDS
    # OpenAI's "off" is -1 in vLLM and 0 in llama.cpp.
    found["top_k"] = max(0, found["top_k"])
    if request.logit_bias:
        found["logit_bias"] = _biases(request.logit_bias, vocabulary)
    return found


def _limit(request: Generation) -> int | None:
    if isinstance(request, ChatRequest):
        return request.limit
    return request.max_tokens if isinstance(request, CompletionRequest) else None


def _biases(given: Mapping[str, float], vocabulary: int) -> list[tuple[int, float]]:
    for token in given:
        if int(token) >= vocabulary:
            raise InvalidRequest(
                f"'logit_bias' names the token {token}; the model has {vocabulary} tokens.",
                param="logit_bias",
            )
    return [(int(token), bias) for token, bias in given.items()]


def wanted_logprobs(request: ChatRequest | CompletionRequest) -> int | None:
    """How many of the likeliest tokens to show at each place; None without log probabilities."""
    if isinstance(request, ChatRequest):
        return (request.top_logprobs or 0) if request.logprobs else None
    return request.logprobs


def check_completion(request: CompletionRequest) -> None:
    """Raises ``Unsupported`` for what llama.cpp cannot do, naming the field."""
    _check_stop_tokens(request)
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
    """Raises ``Unsupported`` for what llama.cpp cannot do, naming the field."""
    _check_stop_tokens(request)
    if request.modalities and "audio" in request.modalities:
        raise Unsupported("This model answers in text only.", param="modalities")


def _check_stop_tokens(request: Generation) -> None:
    if request.stop_token_ids:
        raise Unsupported(
            "This model ends at its own end tokens and at 'stop' strings only.",
            param="stop_token_ids",
        )


def check_tokens(ids: list[int], vocabulary: int, param: str) -> None:
    """Raises ``InvalidRequest`` for a token id that the model does not have."""
    for place, token in enumerate(ids):
        if not 0 <= token < vocabulary:
            raise InvalidRequest(
                f"'{param}' holds the token id {token} at place {place}; "
                f"the model has {vocabulary} tokens.",
                param=param,
            )
