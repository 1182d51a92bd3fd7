"""Reranking on the wire: documents in, the same documents by relevance out.

Source: the rerank APIs of Cohere (v1 and v2) and Jina, whose common part vLLM, llama.cpp and
Xinference answer too. Both name their tokens elsewhere, Jina in ``usage`` and Cohere in ``meta``;
the answer has both.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from dev_opsgpt.protocol.errors import InternalError
from dev_opsgpt.protocol.openai import Wire

MAX_DOCUMENTS = 2048

Text = Annotated[str, Field(min_length=1)]


class DocumentText(Wire):
    """A document as an object; of its fields, the text is what is ranked."""

    text: Text


class RerankRequest(Wire):
    """The body of ``POST /v1/rerank``. Without ``top_n`` all documents come back."""

    model: Annotated[str, Field(min_length=1)]
    query: Text
    documents: Annotated[list[Text | DocumentText], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    rank_fields: list[str] | None = None
    max_chunks_per_doc: Annotated[int, Field(ge=1)] | None = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts, in their order."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


def rerank_answer(
    request: RerankRequest, scores: Sequence[float], tokens: int, *, identifier: str
) -> dict[str, Any]:
    """The answer's body: the most relevant first, those that are alike in the client's order.

    ``scores`` are one a document, ``tokens`` what the model read. Raises ``InternalError`` where a
    score is no number.
    """
    if not all(map(math.isfinite, scores)):
        raise InternalError("The model gave a document a score that is not a number.")
    ranked = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    texts = request.texts if request.return_documents else None
    results: list[dict[str, Any]] = []
    for place in ranked[: request.top_n]:
        result: dict[str, Any] = {"index": place, "relevance_score": scores[place]}
        if texts is not None:
            result["document"] = {"text": texts[place]}
        results.append(result)
    return {
        "id": f"rerank-{identifier}",
        "object": "list",
        "model": request.model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {"tokens": {"input_tokens": tokens}},
    }
