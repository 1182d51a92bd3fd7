"""Rerank by a GGUF whose pooling is by rank: it scores a query and a document that it reads
together.

llama.cpp refuses a pair that is too long; here the document is cut, as other engines do.
"""

import math
from typing import Any

from dev_opsgpt.engines.llama_cpp_server import LlamaServer
from dev_opsgpt.protocol.errors import ContextLengthExceeded
from dev_opsgpt.protocol.rerank import RerankRequest

# What stands for a character of which a cut left only a part.
_HALF = "\ufffd"


class Ranker:
    """Scores documents with a server that was loaded to embed. ``context`` is the most tokens of
    a pair. The scores lie between 0 and 1: the model's own number through a sigmoid, unless the
    model gives ``probabilities`` already."""

    def __init__(self, server: LlamaServer, context: int, *, probabilities: bool = False) -> None:
        self._server = server
        self._context = context
        self._probabilities = probabilities
        self._overhead: int | None = None

    async def rerank(self, request: RerankRequest) -> tuple[list[float], int]:
        """As ``Reranker.rerank``. Raises ``ApiError``."""
        most = await self._room(request.query)
        if request.max_tokens_per_doc is not None:
            most = min(most, request.max_tokens_per_doc)
        documents = [await self._cut(text, most) for text in request.texts]
        found = await self._ask(request.query, documents)
        numbers = {row["index"]: float(row["relevance_score"]) for row in found["results"]}
        made = float if self._probabilities else sigmoid
        scores = [made(numbers[place]) for place in range(len(documents))]
        return scores, found["usage"]["prompt_tokens"]

    async def _room(self, query: str) -> int:
        """The tokens of a document that there is room for beside the query."""
        if self._overhead is None:
            # What a model's template puts around the two is known to llama.cpp alone.
            found = await self._ask("a", ["a"])
            alone = 2 * len(await self._tokens("a"))
            self._overhead = found["usage"]["prompt_tokens"] - alone
        size = len(await self._tokens(query))
        room = self._context - size - self._overhead
        if room < 1:
            raise ContextLengthExceeded(
                f"'query' has {size} tokens; this model takes {self._context}, for it, a document "
                "and what stands around them.",
                param="query",
            )
        return room

    async def _cut(self, text: str, most: int) -> str:
        """The beginning of a text that has at most so many tokens."""
        if len(text.encode()) <= most:
            return text
        kept = most
        while len(tokens := await self._tokens(text)) > most:
            body = {"tokens": tokens[:kept]}
            text = (await self._server.post("/detokenize", body))["content"].rstrip(_HALF)
            # The cut may have changed how what is left is read.
            kept = max(1, kept - 1)
        # llama.cpp takes no empty document, which a cut within the first character would leave.
        return text or "."

    async def _ask(self, query: str, documents: list[str]) -> dict[str, Any]:
        return await self._server.post("/v1/rerank", {"query": query, "documents": documents})

    async def _tokens(self, text: str) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": False}
        tokens: list[int] = (await self._server.post("/tokenize", body))["tokens"]
        return tokens


def sigmoid(value: float) -> float:
    """1 / (1 + e^-value), without an overflow far from 0; NaN stays what it is."""
    if value < 0:
        power = math.exp(value)
        return power / (1 + power)
    return 1 / (1 + math.exp(-value))
