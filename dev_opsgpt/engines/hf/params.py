"""What a request asks of sampling, with the defaults of the model where it asks for nothing.

The request goes first, then the model's ``default_params`` in our configuration, then the
``generation_config.json`` that came with the model, as vLLM does by default; then OpenAI's own:
temperature 1, everything else off.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from dev_opsgpt.engines.asked import (
    biases_of,
    check_tokens,
    checked_params,
    limit_of,
    wanted_logprobs,
)
from dev_opsgpt.engines.hf.sequence import Sampling
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
    checked = checked_params(found)
    of_model = {name: getattr(generation_config, name, None) for name in _OF_MODEL}
    own = {name: value for name, value in of_model.items() if value is not None}
    asked = {name: getattr(checked, name) for name in _SAMPLING if name in found}
    limit = checked.limit or getattr(generation_config, "max_new_tokens", None)
    return Defaults(own | asked, limit, checked.stops, checked.chat_template_kwargs or {})


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
        logit_bias=biases_of(request, vocabulary),
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
