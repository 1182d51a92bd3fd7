"""Embeddings by a model in Hugging Face format: BERT and its kin, and decoders made for it.

``sentence_config`` says how a vector is made, ``reader`` is the model, ``row_batcher`` puts the
inputs of all requests together, and ``pooling`` makes the vectors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import normalizers

from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.engines.hf.pooling import Head
from dev_opsgpt.engines.hf.progress import Progress
from dev_opsgpt.engines.hf.reader import Reader, Row, is_causal, load_reader
from dev_opsgpt.engines.hf.reading_engine import ReadingEngine
from dev_opsgpt.engines.hf.sentence_config import SentenceConfig, read_sentence_config
from dev_opsgpt.engines.hf.source import folder_of
from dev_opsgpt.protocol.errors import (
    ContextLengthExceeded,
    InternalError,
    InvalidRequest,
    Unsupported,
)
from dev_opsgpt.protocol.openai import EmbeddingRequest

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """A loaded model, and how its vectors are made."""

    reader: Reader
    config: SentenceConfig
    head: Head


class EncoderEngine(ReadingEngine[Encoder, Vector]):
    """An embedding model behind the ``Engine`` interface.

    A vector has length 1 where the model's configuration says so, or says nothing at all.
    """

    only = "This model makes embeddings only; use /v1/embeddings."

    def _load(self, options: HfOptions, progress: Progress) -> Encoder:
        folder = folder_of(options.path, code=options.trust_remote_code, progress=progress)
        config = read_sentence_config(folder, causal=is_causal(folder))
        reader = load_reader(
            options,
            "AutoModel",
            progress=progress,
            inside=config.folder,
            longest=config.max_length,
        )
        if config.lower:
            to_lower_case(reader.tokenizer)
        return Encoder(reader, config, Head(config, reader.width, reader.device))

    def _reader(self, loaded: Encoder) -> Reader:
        return loaded.reader

    def _read(self, loaded: Encoder, rows: list[Row]) -> list[Vector]:
        device = loaded.reader.device
        lengths = torch.tensor([len(row.ids) for row in rows], device=device)
        skipped = torch.tensor([row.skipped for row in rows], device=device)
        with torch.inference_mode():
            states = loaded.reader.model(**loaded.reader.batch(rows)).last_hidden_state
            vectors = loaded.head(states.to(device), lengths, skipped)
        return list(vectors.cpu().numpy())

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[list[list[float]], int]:
        """A vector for each input, and the tokens they had together. Ids are read as they are;
        texts get the model's special tokens, and its prompt where there is one."""
        loaded = self._ready
        size, wanted = loaded.head.size, request.dimensions
        if wanted is not None and wanted > size:
            raise InvalidRequest(
                f"'dimensions' is at most {size} with this model (got {wanted}).",
                param="dimensions",
            )
        rows = await self._beside(lambda: rows_of(loaded, inputs, request.prompt_name))
        vectors = await self._results(rows)
        kept = wanted or loaded.config.dimensions
        finished = await self._beside(lambda: finish(vectors, kept))
        return finished, sum(len(row.ids) for row in rows)


def rows_of(
    loaded: Encoder, inputs: list[str] | list[list[int]], prompt_name: str | None
) -> list[Row]:
    """The inputs as the model reads them. Raises ``InvalidRequest`` that names the input."""
    prompt = _prompt(loaded.config, inputs, prompt_name)
    for place, one in enumerate(inputs):
        if not one:
            param = _param(inputs, place)
            raise InvalidRequest(f"'{param}' is empty.", param=param)
    texts = [prompt + one for one in inputs if isinstance(one, str)]
    rows = (
        _text_rows(loaded, texts, prompt) if texts else [Row(list(map(int, one))) for one in inputs]
    )
    for place, row in enumerate(rows):
        _check(loaded.reader, row, _param(inputs, place))
    return rows


def to_lower_case(tokenizer: Any) -> None:
    """Has a tokenizer read texts in lower case, but for the names of special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        tokenizer.do_lower_case = True
        return
    before = [normalizers.Lowercase()]
    after = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence(before + after)


def finish(vectors: list[Vector], dimensions: int | None) -> list[list[float]]:
    """The vectors as numbers: the first ``dimensions`` of each, brought back to length 1, where
    that is asked for. Raises ``InternalError`` where one of them is no number."""
    found: NDArray[np.floating] = np.stack(vectors)
    if not np.isfinite(found).all():
        raise InternalError("The model gave a vector that is not all numbers.")
    if dimensions is not None:
        found = found[:, :dimensions]
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found = found / np.where(lengths == 0, np.float32(1), lengths)
    # One by one: the event loop runs in between.
    return [vector.tolist() for vector in found]


def _prompt(config: SentenceConfig, inputs: list[str] | list[list[int]], name: str | None) -> str:
    """What stands before each text."""
    if name is None:
        return config.prompts[config.default_prompt] if config.default_prompt else ""
    if name not in config.prompts:
        names = ", ".join(sorted(config.prompts)) or "none"
        raise InvalidRequest(
            f"'prompt_name' is no prompt of this model (it has: {names}).", param="prompt_name"
        )
    if not isinstance(inputs[0], str):
        raise Unsupported("A prompt is put before texts, not before ids.", param="prompt_name")
    return config.prompts[name]


def _text_rows(loaded: Encoder, texts: list[str], prompt: str) -> list[Row]:
    tokenizer = loaded.reader.tokenizer
    found = tokenizer(texts, verbose=False)
    types = found.get("token_type_ids") or [None] * len(texts)
    skipped = 0
    if prompt and not loaded.config.include_prompt:
        alone = tokenizer(prompt, verbose=False)["input_ids"]
        # What ends every text ends the prompt alone too, and is no part of it.
        skipped = len(alone) - (alone[-1] in tokenizer.all_special_ids)
    return [Row(ids, kind, skipped) for ids, kind in zip(found["input_ids"], types, strict=True)]


def _check(reader: Reader, row: Row, param: str) -> None:
    if len(row.ids) > reader.longest:
        raise ContextLengthExceeded(
            f"'{param}' has {len(row.ids)} tokens; this model takes at most {reader.longest}.",
            param=param,
        )
    if max(row.ids) >= reader.vocabulary:
        raise InvalidRequest(
            f"'{param}' has the token {max(row.ids)}; this model's go up to "
            f"{reader.vocabulary - 1}.",
            param=param,
        )


def _param(inputs: list[str] | list[list[int]], place: int) -> str:
    return f"input.{place}" if len(inputs) > 1 else "input"
