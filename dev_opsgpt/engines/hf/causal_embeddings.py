"""Embeddings of a model that writes text: the mean over what its last layer says of each token.

That is what the llama.cpp engine does with such a model. A model made for embeddings has an engine
of its own.
"""

import asyncio
import copy
import logging
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from dev_opsgpt.engines.asked import check_tokens
from dev_opsgpt.engines.hf.sequence import LoadedModel
from dev_opsgpt.protocol.errors import ContextLengthExceeded, InvalidRequest, Unsupported
from dev_opsgpt.protocol.openai import EmbeddingRequest

Vectors = list[list[float]]

log = logging.getLogger(__name__)


class CausalEmbedder:
    """Turns inputs into vectors of length 1, one input at a time, in a thread.

    The batcher puts attention of its own into the model's layers, and may arrange their weights
    anew. So this has layers of its own over the same weights, made when the batcher has started;
    ``attention`` names what transformers called before that.
    """

    def __init__(self, loaded: LoadedModel, attention: str | None) -> None:
        self._loaded = loaded
        self._body = _twin(loaded.model.base_model, attention)
        self._size: int | None = getattr(loaded.model.config, "hidden_size", None)
        self._turn = asyncio.Lock()

    def check(self, inputs: list[list[int]], request: EmbeddingRequest) -> None:
        """Raises ``InvalidRequest`` for what cannot be embedded, naming the field."""
        for place, ids in enumerate(inputs):
            param = f"input.{place}" if len(inputs) > 1 else "input"
            if not ids:
                raise InvalidRequest(f"'{param}' is empty.", param=param)
            check_tokens(ids, self._loaded.vocabulary, param)
            if len(ids) > self._loaded.context_length:
                raise ContextLengthExceeded(
                    f"'{param}' has {len(ids)} tokens; this model takes at most "
                    f"{self._loaded.context_length}.",
                    param=param,
                )
        if request.dimensions and self._size and request.dimensions > self._size:
            raise InvalidRequest(
                f"'dimensions' is at most {self._size} with this model (got {request.dimensions}).",
                param="dimensions",
            )

    async def embed(self, inputs: list[list[int]], request: EmbeddingRequest) -> Vectors:
        """A vector for each input. Raises ``Unsupported`` where the model shows no states."""
        self.check(inputs, request)
        found = []
        for ids in inputs:
            async with self._turn:
                found.append(await asyncio.to_thread(self._vector, ids, request.dimensions))
        return found

    def _vector(self, ids: list[int], dimensions: int | None) -> list[float]:
        if self._body is None:
            raise Unsupported("This model gives no embeddings.", param="model")
        with torch.inference_mode():
            given = torch.tensor([ids], device=self._loaded.device)
            states = self._body(input_ids=given, use_cache=False)
            last = getattr(states, "last_hidden_state", None)
            if last is None:
                raise Unsupported("This model gives no embeddings.", param="model")
            vector: list[float] = last[0].float().mean(dim=0).tolist()
        kept = vector[:dimensions]
        length = math.hypot(*kept)
        return [value / length for value in kept] if length else kept


def _twin(body: Any, attention: str | None) -> Any:
    """The modules once more, with the same tensors in them; None where that cannot be had."""
    try:
        found = copy.deepcopy(body, {id(one): one for one in _tensors(body)})
        if attention is not None and found.config._attn_implementation != attention:
            found.set_attn_implementation(attention)
    except Exception:
        log.debug("no embeddings of %s", type(body).__name__, exc_info=True)
        return None
    return found


def _tensors(body: Any) -> Iterator[torch.Tensor]:
    """All that takes memory: parameters, buffers, and what layers were given besides."""
    yield from body.parameters()
    yield from body.buffers()
    for module in body.modules():
        for value in vars(module).values():
            given = value.args if isinstance(value, partial) else (value,)
            yield from (one for one in given if isinstance(one, torch.Tensor))
