"""Embeddings and rerank by a llama.cpp model: an instance of their own, loaded when first asked
for, or the only one where the model does nothing else.

xllamacpp holds Python's global lock while it loads a model, so everything in this process stands
still for that time: short, for the weights are in the page cache already, and there is no warm-up.
"""

import asyncio
import math

from dev_opsgpt.engines.asked import check_tokens
from dev_opsgpt.engines.llama_cpp_gguf import Gguf
from dev_opsgpt.engines.llama_cpp_loading import (
    LlamaOptions,
    context_of,
    embedding_params,
    load,
)
from dev_opsgpt.engines.llama_cpp_rerank import Ranker
from dev_opsgpt.engines.llama_cpp_server import LlamaServer
from dev_opsgpt.protocol.errors import ApiError, InvalidRequest, Unavailable, Unsupported
from dev_opsgpt.protocol.openai import EmbeddingRequest
from dev_opsgpt.protocol.rerank import RerankRequest
from dev_opsgpt.worker.engine import EngineError

Vectors = list[list[float]]


class Embedder:
    """Turns inputs into vectors of length 1, or scores them. ``server`` is the instance, where it
    is loaded already."""

    def __init__(
        self, model: Gguf, options: LlamaOptions, server: LlamaServer | None = None
    ) -> None:
        self._model = model
        self._options = options
        self._lock = asyncio.Lock()
        self._server = server
        self._ranker: Ranker | None = None

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[Vectors, int]:
        """As ``Engine.embed``. Raises ``ApiError``."""
        if self._model.reranks:
            raise Unsupported("This model only reranks; use /v1/rerank.", param="model")
        self._check(inputs, request)
        server = await self._started()
        try:
            found = await server.post("/v1/embeddings", {"input": inputs})
        except ApiError as error:
            if isinstance(error, InvalidRequest) and error.param is None:
                error.param = "input"
            raise
        rows = sorted(found["data"], key=lambda row: row["index"])
        vectors = [row["embedding"] for row in rows]
        if request.dimensions is not None:
            vectors = [_shortened(vector, request.dimensions) for vector in vectors]
        return vectors, found["usage"]["prompt_tokens"]

    async def rerank(self, request: RerankRequest) -> tuple[list[float], int]:
        """As ``Reranker.rerank``. Raises ``ApiError``."""
        if not self._model.reranks:
            raise Unsupported("This model does not rerank.", param="model")
        server = await self._started()
        if self._ranker is None:
            context = context_of(self._model, self._options.embedding_context)
            probabilities = self._model.scores_are_probabilities
            self._ranker = Ranker(server, context, probabilities=probabilities)
        return await self._ranker.rerank(request)

    async def stop(self) -> None:
        """Frees the instance, if there is one."""
        async with self._lock:
            server, self._server = self._server, None
            if server is not None:
                await server.stop()

    async def _started(self) -> LlamaServer:
        async with self._lock:
            if self._server is None:
                try:
                    loop = asyncio.get_running_loop()
                    params = await loop.run_in_executor(
                        None, embedding_params, self._model, self._options
                    )
                    self._server = await load(self._model, params, self._options.parallel)
                except EngineError as error:
                    raise Unavailable(f"The model cannot be loaded to embed: {error}") from None
            return self._server

    def _check(self, inputs: list[str] | list[list[int]], request: EmbeddingRequest) -> None:
        if request.prompt_name is not None:
            raise Unsupported("This model has no prompts of its own.", param="prompt_name")
        many = len(inputs) > 1
        for place, one in enumerate(inputs):
            param = f"input.{place}" if many else "input"
            if not one:
                raise InvalidRequest(f"'{param}' is empty.", param=param)
            if isinstance(one, list):
                check_tokens(one, self._model.vocabulary_size, param)
        size = self._model.embedding_size
        if request.dimensions is not None and request.dimensions > size:
            raise InvalidRequest(
                f"'dimensions' is at most {size} with this model (got {request.dimensions}).",
                param="dimensions",
            )


def _shortened(vector: list[float], size: int) -> list[float]:
    """The first ``size`` numbers, brought back to length 1."""
    kept = vector[:size]
    length = math.sqrt(sum(value * value for value in kept))
    return [value / length for value in kept] if length else kept
