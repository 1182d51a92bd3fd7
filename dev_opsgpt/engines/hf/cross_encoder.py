"""Rerank by a cross-encoder: a classifier with one label, which reads query and document together.

Source: sentence-transformers' ``CrossEncoder``, whose scores these are but for two things. Of a
long pair it cuts the longer of the two; here it is always the document. And it leaves the scores of
some models as the numbers they are; here they lie between 0 and 1, as the rerank APIs of Jina and
Cohere have them and the llama.cpp engine gives them, which knows no activation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.engines.hf.pooling import activation
from dev_opsgpt.engines.hf.progress import Progress
from dev_opsgpt.engines.hf.reader import Reader, Row, load_reader
from dev_opsgpt.engines.hf.reading_engine import ReadingEngine
from dev_opsgpt.engines.hf.source import read_json
from dev_opsgpt.protocol.errors import ContextLengthExceeded
from dev_opsgpt.protocol.rerank import RerankRequest
from dev_opsgpt.worker.engine import EngineError


@dataclass(frozen=True)
class CrossEncoder:
    """A loaded model, and what makes a score of what it says."""

    reader: Reader
    activation: nn.Module


class CrossEncoderEngine(ReadingEngine[CrossEncoder, float]):
    """A cross-encoder behind the ``Engine`` and ``Reranker`` interfaces.

    A score is the model's one number through a sigmoid, so between 0 and 1, unless its
    configuration names an activation that does something else to it.
    """

    only = "This model only reranks; use /v1/rerank."

    def _load(self, options: HfOptions, progress: Progress) -> CrossEncoder:
        reader = load_reader(options, "AutoModelForSequenceClassification", progress=progress)
        config = reader.model.config
        if config.num_labels != 1:
            raise EngineError(
                f"{reader.folder} is a classifier of {config.num_labels} labels; a reranker has 1."
            )
        named = _named_activation(reader, config.to_dict())
        made = activation(named, reader.folder, default=nn.Sigmoid)
        return CrossEncoder(reader, nn.Sigmoid() if isinstance(made, nn.Identity) else made)

    def _reader(self, loaded: CrossEncoder) -> Reader:
        return loaded.reader

    def _read(self, loaded: CrossEncoder, rows: list[Row]) -> list[float]:
        with torch.inference_mode():
            logits = loaded.reader.model(**loaded.reader.batch(rows)).logits
            scores: list[float] = loaded.activation(logits[:, 0].double()).tolist()
        return scores

    async def rerank(self, request: RerankRequest) -> tuple[list[float], int]:
        """A score for each document, and the tokens of all pairs.

        The query is read whole. Of a document as much is read as there is room for beside it, from
        the beginning, and at most ``max_tokens_per_doc`` tokens.
        """
        loaded = self._ready
        rows = await self._beside(lambda: pairs_of(loaded.reader, request))
        return await self._results(rows), sum(len(row.ids) for row in rows)


def pairs_of(reader: Reader, request: RerankRequest) -> list[Row]:
    """The pairs as the model reads them. Raises ``ContextLengthExceeded`` for a query that leaves
    no room for a document."""
    tokenizer = reader.tokenizer
    query = tokenizer(request.query, add_special_tokens=False, verbose=False)["input_ids"]
    before = len(query) + tokenizer.num_special_tokens_to_add(pair=True)
    if before >= reader.longest:
        raise ContextLengthExceeded(
            f"'query' has {len(query)} tokens; this model takes {reader.longest}, for it, a "
            "document and what stands between them.",
            param="query",
        )
    most = reader.longest
    if request.max_tokens_per_doc is not None:
        most = min(most, before + request.max_tokens_per_doc)
    texts = request.texts
    found = tokenizer(
        [request.query] * len(texts),
        texts,
        truncation="only_second",
        max_length=most,
        verbose=False,
    )
    types = found.get("token_type_ids") or [None] * len(texts)
    return [Row(ids, kind) for ids, kind in zip(found["input_ids"], types, strict=True)]


def _named_activation(reader: Reader, config: Mapping[str, Any]) -> object:
    """The activation that the model's files name, wherever its version wrote it."""
    own = config.get("sentence_transformers")
    named = own.get("activation_fn") if isinstance(own, Mapping) else None
    named = named or config.get("sbert_ce_default_activation_function")
    beside = read_json(reader.folder / "config_sentence_transformers.json") or {}
    return named or beside.get("activation_fn")
