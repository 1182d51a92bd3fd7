"""The transformers engine: any causal language model in Hugging Face format.

The parts, in the order a request meets them: ``words`` with ``template`` and ``prompt`` (messages
become tokens), ``grammar`` (what the answer is held to), ``params`` (what is asked of sampling),
``batcher`` (the model, for all requests at once), and ``answering`` with ``detokenizer`` and a
reader of the text.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from dev_opsgpt.engines.asked import (
    check_chat,
    check_completion,
    limit_of,
    wanted_logprobs,
)
from dev_opsgpt.engines.hf import params
from dev_opsgpt.engines.hf.answering import Sequence, answer
from dev_opsgpt.engines.hf.batcher import StepBatcher
from dev_opsgpt.engines.hf.causal_embeddings import CausalEmbedder
from dev_opsgpt.engines.hf.detokenizer import Detokenizer
from dev_opsgpt.engines.hf.grammar import Grammars
from dev_opsgpt.engines.hf.loading import load
from dev_opsgpt.engines.hf.options import HfOptions
from dev_opsgpt.engines.hf.progress import Progress
from dev_opsgpt.engines.hf.sequence import Batcher, LoadedModel, Sampling
from dev_opsgpt.engines.hf.template import ChatTemplate
from dev_opsgpt.engines.hf.token_text import TokenTable, table_of
from dev_opsgpt.engines.hf.words import Words
from dev_opsgpt.engines.text_reader import PlainReader
from dev_opsgpt.protocol.errors import ContextLengthExceeded, InvalidRequest, Unavailable
from dev_opsgpt.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from dev_opsgpt.worker.engine import Abilities, Delta, EngineError, Usage

log = logging.getLogger(__name__)


class _Ready(msgspec.Struct):
    """What there is while a model is loaded."""

    loaded: LoadedModel
    defaults: params.Defaults
    template: ChatTemplate
    table: TokenTable
    words: Words
    grammars: Grammars
    embedder: CausalEmbedder
    batcher: Batcher


class HfEngine:
    """A model in Hugging Face format behind the ``Engine`` interface.

    ``default_params`` are fields for requests that do not set them: those of sampling, ``stop``,
    ``max_tokens`` and ``chat_template_kwargs``. No more than ``options.parallel`` sequences run at
    the same time; others wait in the order they came. ``progress``, if it is set before ``start``,
    is told how the loading goes on, from any thread; else the log is.
    """

    def __init__(
        self, options: HfOptions, *, default_params: Mapping[str, Any] | None = None
    ) -> None:
        self._options = options
        self._given = default_params or {}
        self._now: _Ready | None = None
        self.progress: Progress | None = None

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer share; 0 before the model is loaded."""
        return self._now.loaded.context_length if self._now is not None else 0

    @property
    def abilities(self) -> Abilities:
        """Text only, JSON by a grammar where the tokenizer allows it, and tools, which stand in the
        prompt as text where the chat template shows none; nothing is known before the model is
        loaded."""
        if self._now is None:
            return Abilities()
        return Abilities(
            context_length=self._now.loaded.context_length,
            tools=True,
            vision=False,
            json_output=self._now.grammars.usable,
        )

    @property
    def running(self) -> int:
        """How many sequences are in the batch or wait for it."""
        return self._now.batcher.running if self._now is not None else 0

    async def start(self) -> None:
        """Loads the model. Raises ``EngineError`` with one line: what is wrong with the folder, the
        field of ``default_params``, the memory that is missing."""
        if self._now is not None:
            raise EngineError("The model is loaded already.")
        # What can be known to be wrong without the model, before minutes of loading it.
        params.defaults_of(self._given, None)
        loaded = await asyncio.to_thread(load, self._options, self.progress)
        try:
            self._now = await self._started(loaded)
        except EngineError:
            raise
        except Exception as error:
            log.debug("%s could not be started", self._options.path, exc_info=True)
            reason = str(error).strip().partition("\n")[0]
            raise EngineError(
                f"{self._options.path} was loaded but cannot be run: "
                f"{type(error).__name__}{reason and ': '}{reason}"
            ) from None

    async def _started(self, loaded: LoadedModel) -> _Ready:
        options = self._options
        attention = getattr(loaded.model.config, "_attn_implementation", None)
        batcher = StepBatcher(
            loaded,
            parallel=options.parallel,
            prefill_tokens=options.prefill_tokens,
            cache_tokens=options.cache_tokens,
        )
        await batcher.start()
        try:
            return await asyncio.to_thread(_assembled, loaded, batcher, attention, self._given)
        except BaseException:
            await batcher.stop()
            raise

    async def stop(self) -> None:
        """Ends every request and frees the model's memory."""
        now, self._now = self._now, None
        if now is not None:
            await now.batcher.stop()
            now.words.close()

    async def chat(self, request: ChatRequest, *, index: int = 0) -> AsyncGenerator[Delta, None]:
        """Answers the messages: one sequence."""
        check_chat(request)
        ready = self._ready
        prompt, ids = await ready.words.prompt(request)
        sequence = Sequence(
            prompt=ids,
            param="messages",
            sampling=_sampling(ready, request, len(ids), "messages", index),
            text=Detokenizer(ready.loaded.tokenizer, ready.table, top=wanted_logprobs(request)),
            reader=prompt.reader,
            stops=prompt.stops,
            constraint=await ready.grammars.of(prompt),
        )
        async with aclosing(answer(ready.batcher, sequence)) as steps:
            async for delta in steps:
                yield delta

    async def complete(
        self, request: CompletionRequest, prompt: str | list[int], *, index: int = 0
    ) -> AsyncGenerator[Delta, None]:
        """Continues the prompt: one sequence."""
        check_completion(request)
        ready = self._ready
        ids = await ready.words.ids(prompt, "prompt")
        sampling = _sampling(ready, request, len(ids), "prompt", index)
        if sampling.max_tokens == 0:
            yield Delta(finish_reason="length", usage=Usage(len(ids), 0))
            return
        sequence = Sequence(
            prompt=ids or _beginning(ready.loaded),
            param="prompt",
            sampling=sampling,
            text=Detokenizer(
                ready.loaded.tokenizer,
                ready.table,
                top=wanted_logprobs(request),
                continues=True,
            ),
            reader=PlainReader(),
            stops=params.stops_of(request, ready.defaults),
        )
        async with aclosing(answer(ready.batcher, sequence)) as steps:
            async for delta in steps:
                yield delta

    async def embed(
        self, inputs: list[str] | list[list[int]], request: EmbeddingRequest
    ) -> tuple[list[list[float]], int]:
        """A vector of length 1 for each input, and the tokens they had together."""
        ready = self._ready
        found = []
        given: Iterable[str | list[int]] = inputs
        for place, one in enumerate(given):
            param = f"input.{place}" if len(inputs) > 1 else "input"
            if not one:
                raise InvalidRequest(f"'{param}' is empty.", param=param)
            found.append(await ready.words.ids(one, param))
        return await ready.embedder.embed(found, request), sum(map(len, found))

    def ends_at(self, tokens: list[int]) -> list[int]:
        """Those of the token ids that the model has."""
        vocabulary = self._ready.loaded.vocabulary
        return [token for token in tokens if 0 <= token < vocabulary]

    async def count_tokens(self, prompt: str | list[int] | ChatRequest) -> int:
        """Tokens of a text, of ids, or of messages under the model's chat template."""
        if isinstance(prompt, ChatRequest):
            return len((await self._ready.words.prompt(prompt))[1])
        if isinstance(prompt, str):
            return len(await self._ready.words.ids(prompt, "prompt"))
        return len(prompt)

    @property
    def _ready(self) -> _Ready:
        if self._now is None:
            raise Unavailable("The model is not loaded.")
        return self._now


def _assembled(
    loaded: LoadedModel, batcher: Batcher, attention: str | None, given: Mapping[str, Any]
) -> _Ready:
    defaults = params.defaults_of(given, getattr(loaded.model, "generation_config", None))
    template = ChatTemplate(loaded.tokenizer)
    table = table_of(loaded.tokenizer, template.form.marks)
    return _Ready(
        loaded,
        defaults,
        template,
        table,
        Words(loaded, template, defaults),
        Grammars(loaded, table),
        CausalEmbedder(loaded, attention),
        batcher,
    )


def _sampling(
    ready: _Ready,
    request: ChatRequest | CompletionRequest,
    tokens: int,
    param: str,
    index: int,
) -> Sampling:
    """The sampling of a prompt of so many tokens. Raises ``ContextLengthExceeded`` for one that
    leaves no room for an answer."""
    loaded = ready.loaded
    room = loaded.context_length - tokens
    if room < 1 and limit_of(request) != 0:
        raise ContextLengthExceeded(
            f"The input has {tokens} tokens; this model takes at most {loaded.context_length}, "
            "prompt and answer together.",
            param=param,
        )
    return params.sampling(
        request,
        ready.defaults,
        index=index,
        room=room,
        vocabulary=loaded.vocabulary,
        end_tokens=loaded.end_tokens,
    )


def _beginning(loaded: LoadedModel) -> list[int]:
    """What stands before an empty prompt: there is nothing to continue without it."""
    bos = loaded.tokenizer.bos_token_id
    return [min(loaded.end_tokens, default=0) if bos is None else int(bos)]
