"""What a request asks of sampling, in llama.cpp's words."""

from collections.abc import Mapping
from typing import Any

from dev_opsgpt.engines.asked import biases_of, checked_params, limit_of
from dev_opsgpt.protocol.errors import Unsupported
from dev_opsgpt.protocol.openai import Generation
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
# Its numbers of tokens have 31.
_MOST_TOKENS = 2**31 - 1


def checked_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """A model's ``default_params`` over ``DEFAULTS``. Raises ``EngineError`` for unknown names and
    for values that a request may not have."""
    checked_params({name: value for name, value in given.items() if name not in _OWN})
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
    limit = limit_of(request)
    if limit is not None:
        asked["max_tokens"] = min(limit, _MOST_TOKENS)
    found = {**defaults, **asked}
    found.pop("stop", None)
    if "seed" in found:
        found["seed"] = (found["seed"] + index) % _SEEDS
    # OpenAI's "off" is -1 in vLLM and 0 in llama.cpp.
    found["top_k"] = max(0, found["top_k"])
    if request.logit_bias:
        found["logit_bias"] = list(biases_of(request, vocabulary).items())
    return found


def check_stop_tokens(request: Generation) -> None:
    """Raises ``Unsupported`` for token ids that are to end an answer."""
    if request.stop_token_ids:
        raise Unsupported(
            "This model ends at its own end tokens and at 'stop' strings only.",
            param="stop_token_ids",
        )
